//! Runs a kernel image under QEMU.
//!
//! - `qemu`: the emulator and its settings; `command_line`: the arguments of QEMU and
//!   of the kernel, with the frequency of this machine's `tsc`; `process`: one QEMU
//!   process until its `end`, within its `budget`; `ports`: its output; `console`: the
//!   kernel's log.
//! - `run`: scenarios on one kernel, or a shell; `answers`: checks a guest's reports,
//!   and `table` its outcomes (`excerpt` shortens quotes); `serial_console`: connects
//!   the user's terminal.
//! - `exec`: a command on one kernel, with the same `tools` as a shell.
//! - `initramfs`: the root file system; `elf`: an executable's shared objects, searched
//!   for in the `loader_path`; `brought`: programs of this machine with their
//!   dependencies, at their own paths (`host_files`); `etc`, `module_files`: generated
//!   files.

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
