//! Where a scenario runs.

pub mod check;
mod complaints;
pub mod exercise;
pub mod here;
pub mod isolation;
mod names;
mod programs;
pub mod shell;
pub mod vm;
pub mod worker;
