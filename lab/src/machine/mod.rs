//! Where a scenario runs.

pub mod check;
pub mod exercise;
pub mod here;
pub mod isolation;
mod names;
pub mod shell;
pub mod vm;
pub mod worker;
