//! How outcomes are told.

pub mod progress;
pub mod table;

pub use table::Style;
