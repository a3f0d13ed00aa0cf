//! Plays the arms of a scenario and observes them.

pub mod catalogue;
pub mod evidence;
pub mod judgement;
pub mod perform;
pub mod probe;
pub mod remedies;
pub mod run;
pub mod scenario;
pub mod stage;
pub mod task;

pub use catalogue::Catalogue;
pub use faultlab_base::{Error, Missing, Result};
