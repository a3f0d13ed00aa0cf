//! Several policies on one wire.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::{Decisions, Direction, Frame, Policy};

/// Several policies along one wire, the first of them next to end 0.
///
/// A frame that goes [`Direction::Back`] reaches the last one first. A frame that
/// a policy makes passes the policies between it and the frame's end.
#[derive(Default)]
pub struct Chain {
    policies: Vec<Box<dyn Policy>>,
}

impl Chain {
    /// A wire without a policy: every frame passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `policy` on the side of end 1.
    #[must_use]
    pub fn then(mut self, policy: impl Policy + 'static) -> Self {
        self.policies.push(Box::new(policy));
        self
    }

    /// Carries frames on, each from the gap where it is: gap 0 is end 0, gap n
    /// follows the n-th policy.
    fn carry(&mut self, now: Duration, mut frames: VecDeque<(usize, Frame)>, out: &mut Decisions) {
        while let Some((gap, frame)) = frames.pop_front() {
            let next = match frame.direction {
                Direction::There => Some(gap).filter(|&gap| gap < self.policies.len()),
                Direction::Back => gap.checked_sub(1),
            };
            let Some(next) = next else {
                out.pass(frame);
                continue;
            };
            let mut step = Decisions::default();
            self.policies[next].frame(now, frame, &mut step);
            frames.extend(behind(next, step, out));
        }
    }
}

/// The frames that the policy at `index` passed, each with the gap where it is
/// now.
fn behind(index: usize, step: Decisions, out: &mut Decisions) -> impl Iterator<Item = (usize, Frame)> {
    out.dropped.extend(step.dropped);
    step.passed.into_iter().map(move |frame| match frame.direction {
        Direction::There => (index + 1, frame),
        Direction::Back => (index, frame),
    })
}

impl Policy for Chain {
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Decisions) {
        let gap = match frame.direction {
            Direction::There => 0,
            Direction::Back => self.policies.len(),
        };
        self.carry(now, VecDeque::from([(gap, frame)]), out);
    }

    fn poll(&mut self, now: Duration, waker: &Waker, out: &mut Decisions) -> Option<Duration> {
        // Repeat while anything moves: a frame that one policy releases may be
        // delayed, or due, in another.
        loop {
            let mut moved = false;
            let mut next: Option<Duration> = None;
            for index in 0..self.policies.len() {
                let mut step = Decisions::default();
                let due = self.policies[index].poll(now, waker, &mut step);
                next = next.into_iter().chain(due).min();
                let frames: VecDeque<_> = behind(index, step, out).collect();
                moved |= !frames.is_empty();
                self.carry(now, frames, out);
            }
            if !moved {
                return next;
            }
        }
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        self.policies.iter().flat_map(|policy| policy.counted()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::tests::{numbers, segment};
    use super::super::{Delay, Discard, Hold};
    use super::*;

    /// Records what it sees, and answers segment 1 with a segment 2 in the other
    /// direction.
    struct Witness {
        name: &'static str,
        answers: bool,
        seen: Rc<RefCell<Vec<(&'static str, u32)>>>,
    }

    impl Policy for Witness {
        fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
            let seq = frame.segment().unwrap().header.seq;
            self.seen.borrow_mut().push((self.name, seq));
            if self.answers && seq == 1 {
                out.pass(segment(frame.direction.reverse(), 2, None));
            }
            out.pass(frame);
        }
    }

    #[test]
    fn frames_meet_what_lies_on_their_way() {
        let seen = Rc::default();
        let witness = |name, answers| Witness { name, answers, seen: Rc::clone(&seen) };
        let mut chain = Chain::new()
            .then(witness("first", false))
            .then(witness("second", true))
            .then(witness("third", false));
        let mut out = Decisions::default();
        chain.frame(Duration::ZERO, segment(Direction::There, 1, None), &mut out);
        assert_eq!(seen.take(), [("first", 1), ("second", 1), ("first", 2), ("third", 1)]);
        assert_eq!(numbers(&out.passed), [2, 1]);
        chain.frame(Duration::ZERO, segment(Direction::Back, 3, None), &mut out);
        assert_eq!(seen.take(), [("third", 3), ("second", 3), ("first", 3)]);
    }

    #[test]
    fn what_one_lets_go_another_may_keep_or_drop() {
        let (hold, handle) = Hold::matching(|_, _| true);
        let second = Duration::from_secs(1);
        let mut chain = Chain::new()
            .then(Delay::matching(second, |direction, _| direction == Direction::Back))
            .then(hold)
            .then(Discard::matching(|direction, _| direction == Direction::There));
        let mut out = Decisions::default();
        for (direction, seq) in [(Direction::There, 1), (Direction::Back, 2)] {
            chain.frame(Duration::ZERO, segment(direction, seq, None), &mut out);
        }
        assert_eq!(chain.poll(second, Waker::noop(), &mut out), None);
        handle.release();
        assert_eq!(chain.poll(second, Waker::noop(), &mut out), Some(second * 2));
        assert_eq!((numbers(&out.passed), numbers(&out.dropped)), (vec![], vec![1]));
        assert_eq!(chain.poll(second * 2, Waker::noop(), &mut out), None);
        assert_eq!(numbers(&out.passed), [2]);
    }
}
