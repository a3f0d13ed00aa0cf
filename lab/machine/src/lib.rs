//! Where a scenario runs.

mod belongings;
pub mod check;
pub mod confinement;
pub mod exercise;
pub mod here;
mod ids;
pub mod isolation;
mod mounts;
mod names;
mod programs;
pub mod shell;
mod syscalls;
pub mod vm;
pub mod worker;
