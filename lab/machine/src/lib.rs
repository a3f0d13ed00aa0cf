//! Where a scenario runs.

pub mod check;
pub mod exercise;
pub mod here;
mod names;
pub mod shell;
pub mod vm;
pub mod worker;
