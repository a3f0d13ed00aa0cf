//! How outcomes are told.

pub mod junit;
pub mod ktap;
pub mod matrix;
pub mod pcapng;
pub mod progress;
pub mod standing;
pub mod table;

pub use table::Style;
