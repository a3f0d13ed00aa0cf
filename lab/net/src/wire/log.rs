//! What a wire received, and what happened to it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::policy::{Direction, Frame};
use super::segment::Header;

/// How many records are kept; the oldest are discarded first.
const CAPACITY: usize = 1 << 16;

/// What happened to a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The policy still holds it.
    Held,
    /// It was sent on.
    Passed {
        /// The time, on CLOCK_MONOTONIC.
        at: Duration,
    },
    /// The policy dropped it.
    Dropped,
    /// The policy passed it, but the end it was for is gone.
    Unsent,
}

/// Where a frame came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It arrived at an end.
    End,
    /// The policy made it, or it was injected.
    Lab,
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When it arrived at the wire, by the kernel's receive timestamp, or when it
    /// was made. CLOCK_MONOTONIC.
    pub at: Duration,
    /// Its direction.
    pub direction: Direction,
    /// Where it came from.
    pub origin: Origin,
    /// Its TCP headers, before any policy edits them; `None` if it is not TCP.
    pub header: Option<Header>,
    /// Bytes of TCP payload; of the whole frame if it is not TCP.
    pub length: usize,
    /// What happened to it.
    pub fate: Fate,
}

impl Record {
    fn of(frame: &Frame, at: Duration, origin: Origin, fate: Fate) -> Self {
        let segment = frame.segment();
        Self {
            at,
            direction: frame.direction,
            origin,
            header: segment.map(|segment| segment.header),
            length: segment.map_or(frame.bytes.len(), |segment| segment.payload.len()),
            fate,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::There => "->",
            Direction::Back => "<-",
        };
        write!(f, "{:.6} {direction} ", self.at.as_secs_f64())?;
        match self.header {
            Some(header) => write!(f, "{header}, ")?,
            None => f.write_str("not TCP, ")?,
        }
        write!(f, "length {}", self.length)?;
        match self.fate {
            Fate::Passed { .. } => Ok(()),
            Fate::Held => f.write_str(" (held)"),
            Fate::Dropped => f.write_str(" (dropped)"),
            Fate::Unsent => f.write_str(" (unsent)"),
        }
    }
}

/// The records of a wire: the newest [`CAPACITY`] of them.
#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<Record>,
    forgotten: u64,
}

impl Log {
    /// Records the arrival of `frame`, and marks the frame.
    pub(super) fn arrived(&mut self, frame: &mut Frame, at: Duration) {
        (frame.record, frame.since) = (Some(self.met()), at);
        self.push(Record::of(frame, at, Origin::End, Fate::Held));
    }

    /// Records what happened to `frame` at `now`.
    pub(super) fn ended(&mut self, frame: &Frame, now: Duration, fate: Fate) {
        let Some(number) = frame.record else {
            return self.push(Record::of(frame, now, Origin::Lab, fate));
        };
        let index = number.checked_sub(self.forgotten).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| self.records.get_mut(index)) {
            record.fate = fate;
        }
    }

    /// The records, in the order in which the frames arrived.
    pub(super) fn records(&self) -> Vec<Record> {
        self.records.iter().copied().collect()
    }

    /// How many frames there have been so far.
    pub(super) fn met(&self) -> u64 {
        self.forgotten + self.records.len() as u64
    }

    /// How many old records were discarded.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn push(&mut self, record: Record) {
        if self.records.len() == CAPACITY {
            self.records.pop_front();
            self.forgotten += 1;
        }
        self.records.push_back(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_records_give_way() {
        let mut log = Log::default();
        let mut frames: Vec<_> =
            (0..CAPACITY + 2).map(|_| Frame::new(Direction::There, vec![0; 3])).collect();
        for frame in &mut frames {
            log.arrived(frame, Duration::ZERO);
        }
        assert_eq!(log.forgotten(), 2);
        for frame in [&frames[0], &frames[2]] {
            log.ended(frame, Duration::ZERO, Fate::Dropped);
        }
        let dropped: Vec<_> = log.records().iter().map(|record| record.fate == Fate::Dropped).collect();
        assert_eq!((dropped[0], dropped[1]), (true, false));
    }

    #[test]
    fn shown_with_its_way_and_fate() {
        let mut log = Log::default();
        log.ended(&Frame::new(Direction::Back, vec![0; 60]), Duration::from_millis(1500), Fate::Dropped);
        assert_eq!(log.records()[0].to_string(), "1.500000 <- not TCP, length 60 (dropped)");
    }
}
