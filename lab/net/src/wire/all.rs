//! All wires of this thread, for work that keeps it busy.
//!
//! Arms that run side by side share one thread. In virtual time every
//! instruction of it takes time, and a frame waits in its ring while the thread
//! does something else. So whoever does long work without awaiting anything
//! calls [`carry`] between its parts, and wires come first.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// A wire in this list.
pub(super) trait Carries {
    /// Carries the frames that have arrived or are due, if there are any.
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

/// Notes how long a wire had a frame.
pub(super) fn had(frame: Duration) {
    LONGEST.set(LONGEST.get().max(Some(frame)));
}

/// Has every wire carry the frames that have arrived, and those that are due.
pub fn carry() {
    // A policy may make or end wires: the list is not borrowed meanwhile.
    let wires: Vec<_> = WIRES.with_borrow(|wires| wires.iter().filter_map(Weak::upgrade).collect());
    for wire in wires {
        // Where it is borrowed, it carries already.
        if let Ok(mut wire) = wire.try_borrow_mut() {
            wire.catch_up();
        }
    }
}

/// Does `work`, and has every wire carry after each of its steps: other work may
/// have something to do at once.
pub async fn after_each_step<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let done = work.as_mut().poll(context);
        carry();
        done
    })
    .await
}

/// The longest time that a wire of this thread had a frame which its policy did
/// not keep, since this was asked last; none where no frame passed.
#[must_use]
pub fn longest() -> Option<Duration> {
    LONGEST.take()
}
