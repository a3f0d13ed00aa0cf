//! A kernel image under QEMU, and what it needs to be one.
//!
//! - `store`: the kernels at hand; `suite`: how one comes from a
//!   distribution's mirror; `package`: from a .deb; `image`: what a bzImage
//!   says it is.
//! - `modules`: which modules to load, and in which order.
//! - `elf` and `initramfs`: the running executable as the guest's init.

mod add;
mod apt;
pub mod elf;
pub mod image;
pub mod initramfs;
pub mod modules;
pub mod package;
pub mod store;
pub mod suite;
mod sums;

pub use store::{Entry, Kernel, Progress, Source, Store};
