//! What all layers share: errors, and where the programs of this machine are.

pub mod error;
pub mod programs;

pub use error::{Error, Missing, Result};
