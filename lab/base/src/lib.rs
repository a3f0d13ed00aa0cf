//! What all layers share: errors, text from outside and how much of it, where
//! it is printed, and where the programs of this machine are.

pub mod error;
pub mod limits;
pub mod programs;
pub mod terminal;
pub mod text;

pub use error::{Error, Missing, Result};
