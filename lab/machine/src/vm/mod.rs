//! Runs a kernel image under QEMU.
//!
//! - `qemu`: the emulator; `command_line`: its own and the kernel's, with the rate
//!   of this machine's `tsc`; `process`: one QEMU from its start to its `end`,
//!   within its `budget`; `ports`: its output; `console`: what its kernel printed.
//! - `run`: scenarios on one kernel, or a shell with its `tools`; `answers`: checks
//!   a guest's reports, and `table` its outcomes; `serial_console`: attaches a person.
//! - `exec`: any command on one kernel, with the same files as a shell.
//! - `initramfs`: the root file system; `elf`: an executable's shared objects, found
//!   by the `loader_path`; `brought`: programs of this machine with what they need,
//!   at their own paths (`host_files`); `etc`, `module_files`: what is made for them.

pub mod answers;
mod brought;
pub mod budget;
pub mod command_line;
pub mod console;
pub mod elf;
pub mod end;
mod etc;
mod excerpt;
pub mod exec;
mod host_files;
pub mod initramfs;
mod loader_path;
mod module_files;
pub mod ports;
pub mod process;
pub mod qemu;
pub mod run;
pub mod serial_console;
mod table;
pub mod tools;
mod tsc;

pub use brought::{named, program_named};
pub use console::Console;
pub use end::{ExitReason, GuestEnd};
pub use process::Interrupted;
pub use qemu::{GuestClock, Qemu};
pub use run::{ShellEvent, Vm};
