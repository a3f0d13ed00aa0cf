//! All wires of this thread, for callers that keep the thread busy.
//!
//! Concurrent arms share one thread. Every instruction costs virtual time, and
//! frames wait in their rings while the thread does something else. Code that
//! works for long without an await point must call [`carry`] in between, so that
//! wires come first.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// A wire in the list.
pub(super) trait Carries {
    /// Carries all frames that have arrived or are due.
    fn catch_up(&mut self);
}

thread_local! {
    static WIRES: RefCell<Vec<Weak<RefCell<dyn Carries>>>> = const { RefCell::new(vec![]) };
    static LONGEST: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Adds a wire.
pub(super) fn add(wire: &Rc<RefCell<impl Carries + 'static>>) {
    let wire = Rc::downgrade(wire);
    WIRES.with_borrow_mut(|wires| {
        wires.retain(|wire| wire.strong_count() > 0);
        wires.push(wire);
    });
}

/// Records how long a wire held a frame that its policy did not hold.
pub(super) fn record_delay(delay: Duration) {
    LONGEST.set(LONGEST.get().max(Some(delay)));
}

/// Makes every wire carry the frames that have arrived or are due.
pub fn carry() {
    // A policy may create or drop wires, so the list must not be borrowed here.
    let wires: Vec<_> = WIRES.with_borrow(|wires| wires.iter().filter_map(Weak::upgrade).collect());
    for wire in wires {
        // A wire that is already borrowed is already carrying.
        if let Ok(mut wire) = wire.try_borrow_mut() {
            wire.catch_up();
        }
    }
}

/// Runs `work`, and makes every wire carry frames after each of its steps: other
/// tasks may be ready at once.
pub async fn after_each_step<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let done = work.as_mut().poll(context);
        carry();
        done
    })
    .await
}

/// The longest time since the last call that a wire of this thread held a frame
/// which its policy did not hold; `None` if no frame passed.
#[must_use]
pub fn longest() -> Option<Duration> {
    LONGEST.take()
}
