//! A link that fails silently.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Decisions, Frame, Policy};

/// Carries nothing in either direction once it is cut. Both ends keep their
/// carrier, so neither notices that the link is dead.
#[derive(Debug)]
pub struct Cut {
    cut: Rc<Cell<bool>>,
}

/// Cuts a [`Cut`].
#[derive(Clone, Debug)]
pub struct CutHandle {
    cut: Rc<Cell<bool>>,
}

impl Cut {
    /// A link that still carries everything.
    #[must_use]
    pub fn new() -> (Self, CutHandle) {
        let cut = Rc::new(Cell::new(false));
        (Self { cut: cut.clone() }, CutHandle { cut })
    }
}

impl CutHandle {
    /// Cuts the link.
    pub fn cut(&self) {
        self.cut.set(true);
    }
}

impl Policy for Cut {
    fn frame(&mut self, _now: Duration, frame: Frame, out: &mut Decisions) {
        if self.cut.get() { out.drop(frame) } else { out.pass(frame) }
    }
}
