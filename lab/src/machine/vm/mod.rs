//! A kernel image under QEMU, and what it needs to be one.
//!
//! - `store`: the kernels at hand, under `sums`; `add`: how one gets there,
//!   from a `suite` through `apt` and its `mirror`, from a `package`, from an `image`.
//! - `kernel`: one that can be run; `modules`: which of them to load, and in
//!   which order; `module`: what one says of itself.
//! - `elf` and `initramfs`: the running executable as the guest's init.

mod add;
mod apt;
pub mod elf;
pub mod image;
pub mod initramfs;
pub mod kernel;
mod mirror;
pub mod module;
pub mod modules;
pub mod package;
pub mod store;
pub mod suite;
mod sums;

pub use add::{Progress, Source};
pub use kernel::Kernel;
pub use store::{Entry, Store};
