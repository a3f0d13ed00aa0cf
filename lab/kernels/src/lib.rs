//! The kernels at hand.
//!
//! - `store`: the entries, under `sums`; `add`: how one gets there, from a
//!   `suite` through `apt` and its `mirror`, from a `package`, from an `image`.
//! - `kernel`: one that can be run; `modules`: which of them to load, and in
//!   which order; `module`: what one says of itself; `vmlinux`: the kernel out
//!   of its bzImage.

mod add;
mod apt;
pub mod image;
pub mod kernel;
mod mirror;
pub mod module;
pub mod modules;
pub mod package;
pub mod store;
pub mod suite;
mod sums;
pub mod vmlinux;

pub use add::{Progress, Source};
pub use kernel::Kernel;
pub use store::{Entry, Store};
