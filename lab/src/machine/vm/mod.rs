//! A kernel image under QEMU, and what it needs to be one.
//!
//! - `qemu`: the command line; `guest`: one guest from its start to its end;
//!   `console`: what its kernel printed.
//! - `housekeeping`: what init does before the first scenario.
//! - `vmlinux`: the kernel out of its bzImage, which boots sooner.
//! - `frame` and `line`: what the guest reports, and the wire it does it on.

pub mod console;
pub mod frame;
pub mod guest;
pub mod housekeeping;
pub mod line;
pub mod qemu;
pub mod vmlinux;

pub use console::Console;
pub use frame::{Decoder, Frame};
pub use guest::{End, GuestEnd};
pub use qemu::{Clock, Guest, Qemu};
