//! This program as the init of a guest. `vm` runs the guest on the host; `protocol` is
//! the interface between the two.
//!
//! - `init`: the main function; `housekeeping`: mounts, modules and settings before
//!   the first job, and the power-off; `priority`: CPU scheduling; `tools`: busybox's
//!   applets for a shell or a command.
//! - `line`: sends frames to the host; `outputs`: sends what a shell without a terminal
//!   prints.

pub mod housekeeping;
pub mod init;
pub mod line;
pub(crate) mod outputs;
mod priority;
mod tools;

pub use init::{asked, main};
