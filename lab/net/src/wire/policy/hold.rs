//! Segments that are held until a scenario releases them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::{Decisions, Direction, Frame, Policy, Predicate, matches};
use crate::wire::segment::Segment;

/// Holds matching segments until released.
pub struct Hold {
    predicate: Predicate,
    shared: Rc<HoldShared>,
}

#[derive(Default)]
struct HoldShared {
    held: RefCell<Vec<Frame>>,
    released: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Releases the segments that a [`Hold`] holds.
#[derive(Clone)]
pub struct HoldHandle {
    shared: Rc<HoldShared>,
}

impl Hold {
    /// Holds every matching segment until [`HoldHandle::release`].
    pub fn matching(predicate: impl FnMut(Direction, &Segment<'_>) -> bool + 'static) -> (Self, HoldHandle) {
        let shared = Rc::new(HoldShared::default());
        (Self { predicate: Box::new(predicate), shared: shared.clone() }, HoldHandle { shared })
    }
}

impl HoldHandle {
    /// Sends the held segments on, in order of arrival, and holds nothing from
    /// now on.
    pub fn release(&self) {
        self.shared.released.set(true);
        if let Some(waker) = self.shared.waker.take() {
            waker.wake();
        }
    }

    /// How many segments are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.held.borrow().len()
    }
}

impl Policy for Hold {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        if !self.shared.released.get() && matches(&mut self.predicate, &frame) {
            self.shared.held.borrow_mut().push(frame);
        } else {
            // Held segments come first, even if the release has not been polled yet.
            self.let_go(out);
            out.pass(frame);
        }
    }

    fn poll(&mut self, _now: Duration, waker: &Waker, out: &mut Decisions) -> Option<Duration> {
        self.let_go(out);
        self.shared.waker.set(Some(waker.clone()));
        None
    }
}

impl Hold {
    fn let_go(&self, out: &mut Decisions) {
        if self.shared.released.get() {
            self.shared.held.take().into_iter().for_each(|frame| out.pass(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::super::tests::{numbers, segment};
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_release_wakes_the_wire_and_keeps_the_order() {
        let (mut hold, handle) = Hold::matching(|_, segment| segment.header.seq != 2);
        let mut out = Decisions::default();
        (1..=3).for_each(|seq| hold.frame(Duration::ZERO, segment(Direction::There, seq, None), &mut out));
        assert_eq!((handle.held(), numbers(&out.passed)), (2, vec![2]));

        let woken = Arc::new(Woken::default());
        assert_eq!(hold.poll(Duration::ZERO, &woken.clone().into(), &mut out), None);
        handle.release();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        // A segment that arrives before the wire polls again goes behind the held
        // ones.
        hold.frame(Duration::ZERO, segment(Direction::There, 4, None), &mut out);
        assert_eq!((handle.held(), numbers(&out.passed)), (0, vec![2, 1, 3, 4]));
    }
}
