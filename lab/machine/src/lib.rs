//! Where a scenario runs.

mod belongings;
pub mod check;
mod complaints;
pub mod confinement;
pub mod exercise;
pub mod here;
mod ids;
mod mounts;
mod names;
pub mod shell;
mod syscalls;
mod tmpfs;
pub mod vm;
pub mod worker;
