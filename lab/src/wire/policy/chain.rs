//! Several policies on one wire.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::{Frame, Out, Policy, Way};

/// Several policies along one wire, the first one next to end 0.
///
/// A frame that goes [`Way::Back`] meets the last one first; what a policy
/// makes itself goes through those that lie between it and the frame's end.
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

    /// Puts `policy` at the end that lies towards end 1.
    #[must_use]
    pub fn then(mut self, policy: impl Policy + 'static) -> Self {
        self.policies.push(Box::new(policy));
        self
    }

    /// Carries frames on, each from the gap where it is: gap 0 is end 0, gap n
    /// lies behind the n-th policy.
    fn carry(&mut self, now: Duration, mut frames: VecDeque<(usize, Frame)>, out: &mut Out) {
        while let Some((gap, frame)) = frames.pop_front() {
            let next = match frame.way {
                Way::There => Some(gap).filter(|&gap| gap < self.policies.len()),
                Way::Back => gap.checked_sub(1),
            };
            let Some(next) = next else {
                out.pass(frame);
                continue;
            };
            let mut step = Out::default();
            self.policies[next].frame(now, frame, &mut step);
            frames.extend(behind(next, step, out));
        }
    }
}

/// The frames that the policy at `index` passed, each at the gap where it is now.
fn behind(index: usize, step: Out, out: &mut Out) -> impl Iterator<Item = (usize, Frame)> {
    out.dropped.extend(step.dropped);
    step.passed.into_iter().map(move |frame| match frame.way {
        Way::There => (index + 1, frame),
        Way::Back => (index, frame),
    })
}

impl Policy for Chain {
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Out) {
        let gap = match frame.way {
            Way::There => 0,
            Way::Back => self.policies.len(),
        };
        self.carry(now, VecDeque::from([(gap, frame)]), out);
    }

    fn poll(&mut self, now: Duration, waker: &Waker, out: &mut Out) -> Option<Duration> {
        // Again while anything moves: a frame that one policy let go may be
        // late, or due, in another.
        loop {
            let mut moved = false;
            let mut next: Option<Duration> = None;
            for index in 0..self.policies.len() {
                let mut step = Out::default();
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
}
