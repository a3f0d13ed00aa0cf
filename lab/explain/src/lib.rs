//! What became of each packet, and why an arm met what it met. No I/O.

mod arrange;
pub mod carried;
pub mod dropped;
pub mod hops;
pub mod remarks;
pub mod verdicts;
pub mod why;

pub use arrange::arrange;
