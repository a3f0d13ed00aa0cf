//! Where a scenario runs.

pub mod check;
pub mod here;
pub mod isolation;
pub mod shell;
pub mod vm;
pub mod worker;
