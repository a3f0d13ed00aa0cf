//! What all layers share: errors, limits on untrusted text, output to the
//! terminal, and the paths of this machine's programs.

pub mod error;
pub mod limits;
pub mod locale;
pub mod programs;
pub mod terminal;
pub mod text;

pub use error::{Error, Missing, Result};
