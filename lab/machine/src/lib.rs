//! Where a scenario runs.

pub mod check;
mod complaints;
pub mod exercise;
pub mod here;
mod names;
pub mod shell;
pub mod vm;
pub mod worker;
