//! A kernel image under QEMU, and what it needs to be one.
//!
//! - `qemu`: the emulator; `command_line`: its own and the kernel's, with the
//!   rate of this machine's `tsc`; `guest`: one guest from its start to its end;
//!   `vmlinux`: the kernel out of its bzImage, which boots sooner;
//!   `console`: what its kernel printed.
//! - `init`: the life of the guest's init; `housekeeping`: what it does before
//!   the first scenario; `frame` and `line`: how it reports.
//! - `run`: scenarios on one kernel, or a shell; `person`: who sits at that,
//!   `tools`: and with what in hand.
//! - `store`: the kernels at hand, under `sums`; `add`: how one gets there,
//!   from a `suite` through `apt` and its `mirror`, from a `package`, from an `image`.
//! - `kernel`: one that can be run; `modules`: which of them to load, and in
//!   which order; `module`: what one says of itself.
//! - `elf` and `initramfs`: the running executable as the guest's init, and other programs.

mod add;
mod apt;
pub mod command_line;
pub mod console;
pub mod elf;
pub mod frame;
pub mod guest;
pub mod housekeeping;
pub mod image;
pub mod init;
pub mod initramfs;
pub mod kernel;
pub mod line;
mod mirror;
pub mod module;
pub mod modules;
pub mod package;
pub mod person;
mod priority;
pub mod qemu;
pub mod run;
pub mod store;
pub mod suite;
mod sums;
pub mod tools;
mod tsc;
mod vmlinux;

pub use add::{Progress, Source};
pub use console::Console;
pub use frame::{Decoder, Frame};
pub use guest::{End, GuestEnd};
pub use kernel::Kernel;
pub use qemu::{Clock, Qemu};
pub use run::Vm;
pub use store::{Entry, Store};
