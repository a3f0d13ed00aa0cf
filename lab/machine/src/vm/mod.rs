//! A kernel image under QEMU, and what it needs to be one.
//!
//! - `qemu`: the emulator; `command_line`: its own and the kernel's, with the
//!   rate of this machine's `tsc`; `guest`: one guest from its start to its `end`,
//!   within its `budget`; `ports`: what comes out of it; `console`: what its kernel
//!   printed.
//! - `init`: the life of the guest's init; `housekeeping`: what it does before
//!   the first scenario; `frame` and `line`: how it reports.
//! - `run`: scenarios on one kernel, or a shell; `answers`: what a guest may say to
//!   that, `table`: and what of an outcome is believed; `person`: who sits at that,
//!   `tools`: and with what in hand.
//! - `elf` and `initramfs`: the running executable as the guest's init, and other programs.

pub mod answers;
pub mod budget;
pub mod command_line;
pub mod console;
pub mod elf;
pub mod end;
pub mod frame;
pub mod guest;
pub mod housekeeping;
pub mod init;
pub mod initramfs;
pub mod line;
pub mod person;
pub mod ports;
mod priority;
pub mod qemu;
pub mod run;
mod table;
pub mod tools;
mod tsc;

pub use console::Console;
pub use end::{End, GuestEnd};
pub use frame::{Decoder, Frame};
pub use qemu::{Clock, Qemu};
pub use run::Vm;
