//! This program as the init of a guest. `vm` runs the guest on the host; `protocol` is
//! the interface between the two.
//!
//! - `init`: the main function. Before the first job it sets up `mounts`, the
//!   `console`, the `modules`, and the settings of `housekeeping`, which also powers off.
//!   `priority`: CPU scheduling; `tools`: busybox's applets for a shell or a command.
//! - `line`: sends frames to the host; `outputs`: sends what a shell without a terminal
//!   prints.

pub mod console;
pub mod housekeeping;
pub mod init;
pub mod line;
mod modules;
pub mod mounts;
pub(crate) mod outputs;
mod priority;
mod tools;

use faultlab_base::error::{Error, Result};

pub use init::{asked, main};

/// The name of a guest's init in error messages.
const INIT: &str = "init";

/// Fails unless this process is a guest's init: these changes must never be made on the
/// host.
fn only_as_init() -> Result<()> {
    if std::process::id() == 1 { Ok(()) } else { Err(Error::Lab("this process is not init".to_owned())) }
}
