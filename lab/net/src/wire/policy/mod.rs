//! What a wire does with its frames.
//!
//! A [`Policy`] decides about one frame at a time: it passes, drops or holds the
//! frame, or sends others as well. It does no I/O and reads no clock. A scenario
//! controls a policy of a running wire through a handle; handles and policies
//! stay on one thread.
//!
//! Predicates see TCP segments only. Everything else passes.

mod chain;
mod clock;
mod cut;
mod delay;
mod hold;

use std::task::Waker;
use std::time::Duration;

use super::segment::Segment;

pub use chain::Chain;
pub use clock::{RemoveTimestamps, ShiftTimestampClock};
pub use cut::{Cut, CutHandle};
pub use delay::Delay;
pub use hold::{Hold, HoldHandle};

/// The direction of a frame on its wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From end 0 to end 1.
    There,
    /// From end 1 to end 0.
    Back,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::There, Self::Back];

    /// The other direction.
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::There => Self::Back,
            Self::Back => Self::There,
        }
    }
}

/// An Ethernet frame on a wire.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a frame that is neither passed nor dropped counts as held"]
pub struct Frame {
    /// Its direction.
    pub direction: Direction,
    /// Its bytes, from the destination address to the end of the payload.
    pub bytes: Vec<u8>,
    /// Its record in the log; `None` for a frame that was made here.
    pub(in crate::wire) record: Option<u64>,
    /// When the wire's own delay began: on arrival, or when the policy released it.
    pub(in crate::wire) since: Duration,
}

impl Frame {
    /// A frame that did not arrive at an end.
    pub fn new(direction: Direction, bytes: Vec<u8>) -> Self {
        Self { direction, bytes, record: None, since: Duration::ZERO }
    }

    /// The TCP segment in it, if there is one.
    #[must_use]
    pub fn segment(&self) -> Option<Segment<'_>> {
        Segment::parse(&self.bytes)
    }
}

/// The frames that a policy has decided to pass and to drop.
#[derive(Default, Debug)]
pub struct Decisions {
    pub(in crate::wire) passed: Vec<Frame>,
    pub(in crate::wire) dropped: Vec<Frame>,
}

impl Decisions {
    /// Passes `frame` on.
    pub fn pass(&mut self, frame: Frame) {
        self.passed.push(frame);
    }

    /// Drops `frame`.
    pub fn drop(&mut self, frame: Frame) {
        self.dropped.push(frame);
    }
}

/// Decides about the frames of a wire.
pub trait Policy {
    /// Decides about `frame`, which arrived at `now`, a time of
    /// CLOCK_MONOTONIC. A frame that is neither passed nor dropped is held.
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Decisions);

    /// Returns held frames that are due at `now`, and the time of the next poll.
    ///
    /// Called after frames arrive, at the time it returned, and when `waker`,
    /// which the policy may store, is woken.
    fn poll(&mut self, _now: Duration, _waker: &Waker, _out: &mut Decisions) -> Option<Duration> {
        None
    }

    /// What a kernel in its place would have counted, by counter name.
    fn counted(&self) -> Vec<(&'static str, u64)> {
        vec![]
    }
}

/// Which segments a policy applies to.
pub type Predicate = Box<dyn FnMut(Direction, &Segment<'_>) -> bool>;

fn matches(predicate: &mut Predicate, frame: &Frame) -> bool {
    frame.segment().is_some_and(|segment| predicate(frame.direction, &segment))
}

/// Passes every frame, like a good cable.
#[derive(Debug)]
pub struct Pass;

impl Policy for Pass {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        out.pass(frame);
    }
}

/// Drops segments.
pub struct Discard {
    predicate: Predicate,
}

impl Discard {
    /// Drops every matching segment.
    pub fn matching(predicate: impl FnMut(Direction, &Segment<'_>) -> bool + 'static) -> Self {
        Self { predicate: Box::new(predicate) }
    }

    /// Drops only the `n`-th matching segment, counted from 1.
    pub fn nth(n: u64, mut predicate: impl FnMut(Direction, &Segment<'_>) -> bool + 'static) -> Self {
        let mut seen = 0;
        Self::matching(move |direction, segment| {
            let hit = predicate(direction, segment);
            seen += u64::from(hit);
            hit && seen == n
        })
    }
}

impl Policy for Discard {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        if matches(&mut self.predicate, &frame) { out.drop(frame) } else { out.pass(frame) }
    }
}

/// Sends matching segments twice, back to back.
pub struct Duplicate {
    predicate: Predicate,
}

impl Duplicate {
    /// Duplicates every matching segment.
    pub fn matching(predicate: impl FnMut(Direction, &Segment<'_>) -> bool + 'static) -> Self {
        Self { predicate: Box::new(predicate) }
    }
}

impl Policy for Duplicate {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        let copy =
            matches(&mut self.predicate, &frame).then(|| Frame::new(frame.direction, frame.bytes.clone()));
        out.pass(frame);
        if let Some(copy) = copy {
            out.pass(copy);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::segment::{Flags, Header, Macs, Timestamps};

    const MACS: Macs = Macs { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };

    /// A segment that is identified by its sequence number.
    pub(in crate::wire::policy) fn segment(
        direction: Direction,
        seq: u32,
        timestamps: Option<Timestamps>,
    ) -> Frame {
        let header = Header {
            src: "10.0.0.1:1".parse().unwrap(),
            dst: "10.0.0.2:2".parse().unwrap(),
            seq,
            ack: 0,
            flags: Flags::ACK,
            window: 0,
            timestamps,
        };
        Frame::new(direction, Segment { header, payload: b"abc" }.frame(MACS).unwrap())
    }

    pub(in crate::wire::policy) fn numbers(frames: &[Frame]) -> Vec<u32> {
        frames.iter().map(|frame| frame.segment().unwrap().header.seq).collect()
    }

    /// What `policy` does with segments 1, 2, 3... of one direction.
    fn three(policy: &mut dyn Policy, direction: Direction) -> Decisions {
        let mut out = Decisions::default();
        (1..=3).for_each(|seq| policy.frame(Duration::ZERO, segment(direction, seq, None), &mut out));
        out
    }

    #[test]
    fn only_the_nth_match_is_discarded() {
        let mut policy =
            Discard::nth(2, |direction, segment| direction == Direction::There && segment.header.seq != 1);
        assert_eq!(three(&mut policy, Direction::Back).passed.len(), 3);
        let out = three(&mut policy, Direction::There);
        assert_eq!((numbers(&out.passed), numbers(&out.dropped)), (vec![1, 2], vec![3]));
        assert_eq!(three(&mut policy, Direction::There).passed.len(), 3);
    }

    #[test]
    fn a_copy_follows_its_original() {
        let out = three(&mut Duplicate::matching(|_, segment| segment.header.seq == 2), Direction::Back);
        assert_eq!(numbers(&out.passed), [1, 2, 2, 3]);
    }

    #[test]
    fn what_is_not_tcp_passes() {
        let arp = Frame::new(Direction::There, vec![0xff; 42]);
        let (hold, _handle) = Hold::matching(|_, _| true);
        let (cut, link) = Cut::tcp_only();
        link.cut();
        let policies: [Box<dyn Policy>; 6] = [
            Box::new(cut),
            Box::new(Discard::matching(|_, _| true)),
            Box::new(Duplicate::matching(|_, _| true)),
            Box::new(Delay::matching(Duration::from_secs(1), |_, _| true)),
            Box::new(hold),
            Box::new(ShiftTimestampClock::new(Direction::There, 1)),
        ];
        for mut policy in policies {
            let mut out = Decisions::default();
            policy.frame(Duration::ZERO, arp.clone(), &mut out);
            assert_eq!(out.passed, std::slice::from_ref(&arp));
        }
    }
}
