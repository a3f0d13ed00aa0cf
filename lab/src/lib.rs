//! The engine of faultlab.

pub mod error;
pub mod evidence;
pub mod machine;
pub mod network;
pub mod topology;
pub mod wire;

pub use error::{Error, Missing, Result};
