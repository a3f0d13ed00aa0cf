//! A link that fails silently.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Decisions, Frame, Policy};

/// Carries nothing in either direction while it is cut. Both ends keep their
/// carrier, so neither notices that the link is dead.
#[derive(Debug)]
pub struct Cut {
    cut: Rc<Cell<bool>>,
    /// Whether only TCP segments are lost.
    segments_only: bool,
}

/// Cuts a [`Cut`], and mends it.
#[derive(Clone, Debug)]
pub struct CutHandle {
    cut: Rc<Cell<bool>>,
}

impl Cut {
    /// A link that still carries everything.
    #[must_use]
    pub fn new() -> (Self, CutHandle) {
        Self::of(false)
    }

    /// The same, but only TCP segments are lost while it is cut. ARP is still answered, as
    /// by a next hop whose own link is down.
    #[must_use]
    pub fn tcp_only() -> (Self, CutHandle) {
        Self::of(true)
    }

    fn of(segments_only: bool) -> (Self, CutHandle) {
        let cut = Rc::new(Cell::new(false));
        (Self { cut: cut.clone(), segments_only }, CutHandle { cut })
    }
}

impl CutHandle {
    /// Cuts the link.
    pub fn cut(&self) {
        self.cut.set(true);
    }

    /// Makes the link carry everything again.
    pub fn mend(&self) {
        self.cut.set(false);
    }
}

impl Policy for Cut {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        let is_lost = self.cut.get() && (!self.segments_only || frame.segment().is_some());
        if is_lost { out.drop(frame) } else { out.pass(frame) }
    }
}
