//! Where a scenario runs.

pub mod vm;
