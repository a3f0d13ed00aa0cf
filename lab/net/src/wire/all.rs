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
use std::task::{Context, Waker};
use std::time::Duration;

use super::Shared;

thread_local! {
    static WIRES: RefCell<Vec<Weak<RefCell<Shared>>>> = const { RefCell::new(vec![]) };
    static LONGEST: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Adds a wire.
pub(super) fn add(wire: &Rc<RefCell<Shared>>) {
    WIRES.with_borrow_mut(|wires| {
        wires.retain(|wire| wire.strong_count() > 0);
        wires.push(Rc::downgrade(wire));
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
        let Ok(mut shared) = wire.try_borrow_mut() else { continue };
        if shared.is_behind() {
            // Before its task has been polled nobody is to be woken: it will be.
            let waker = shared.waker.clone().unwrap_or_else(|| Waker::noop().clone());
            let _ = shared.carry(&mut Context::from_waker(&waker));
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
pub fn longest() -> Option<Duration> {
    LONGEST.take()
}
