//! Delayed segments.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::{Decisions, Direction, Frame, Policy, Predicate, matches};
use crate::wire::segment::Segment;

/// Delays matching segments, and keeps their order.
pub struct Delay {
    by: Duration,
    predicate: Predicate,
    late: VecDeque<(Duration, Frame)>,
}

impl Delay {
    /// Delays every matching segment by `by`.
    pub fn matching(by: Duration, predicate: impl FnMut(Direction, &Segment<'_>) -> bool + 'static) -> Self {
        Self { by, predicate: Box::new(predicate), late: VecDeque::new() }
    }
}

impl Policy for Delay {
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Decisions) {
        if matches(&mut self.predicate, &frame) {
            // The arrivals at the two ends are not ordered with respect to each
            // other.
            let behind = self.late.back().map_or(Duration::ZERO, |(due, _)| *due);
            self.late.push_back(((now + self.by).max(behind), frame));
        } else {
            out.pass(frame);
        }
    }

    fn poll(&mut self, now: Duration, _waker: &Waker, out: &mut Decisions) -> Option<Duration> {
        let due = self.late.partition_point(|(due, _)| *due <= now);
        self.late.drain(..due).for_each(|(_, frame)| out.pass(frame));
        self.late.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{numbers, segment};
    use super::*;

    #[test]
    fn a_late_segment_is_due_once() {
        let ms = Duration::from_millis;
        let mut delay = Delay::matching(ms(50), |_, segment| segment.header.seq != 3);
        let mut out = Decisions::default();
        // The second arrived earlier, at the other end, but is processed later.
        for (at, direction, seq) in
            [(10, Direction::There, 1), (5, Direction::Back, 2), (20, Direction::There, 3)]
        {
            delay.frame(ms(at), segment(direction, seq, None), &mut out);
        }
        assert_eq!(numbers(&out.passed), [3]);
        assert_eq!(delay.poll(ms(59), Waker::noop(), &mut out), Some(ms(60)));
        assert_eq!(numbers(&out.passed), [3]);
        assert_eq!(delay.poll(ms(60), Waker::noop(), &mut out), None);
        assert_eq!(numbers(&out.passed), [3, 1, 2]);
    }
}
