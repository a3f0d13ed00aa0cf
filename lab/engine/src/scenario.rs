//! A fault and the play that shows it.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;

use faultlab_base::Result;
use faultlab_model::scenario::Fault;

use crate::stage::Stage;

/// The probes of one arm, under way.
pub type Play<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A fault and the play that shows it.
#[derive(Debug)]
pub struct Scenario {
    /// What the fault is.
    pub fault: Fault,
    /// The probes, the same in every arm.
    pub play: for<'a> fn(&'a Stage<'a>) -> Play<'a>,
}

impl Deref for Scenario {
    type Target = Fault;

    fn deref(&self) -> &Fault {
        &self.fault
    }
}
