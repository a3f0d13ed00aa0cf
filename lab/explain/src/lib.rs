//! Explains what happened to each packet, and why an arm's outcome is what it is. No
//! I/O.

mod arrange;
pub mod carried;
pub mod copies;
pub mod dropped;
pub mod hops;
pub mod remarks;
pub mod verdicts;
pub mod why;

pub use arrange::arrange;
