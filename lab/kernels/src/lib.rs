//! The available kernels.
//!
//! - `store`: the entries, each an `entry` under `sums`; `add`: adds one from its
//!   `source`, with `progress`: from a `suite` through `apt` and its `mirror` (each
//!   runs a `command`), from a `package` (an `ar` archive), from an `image`.
//! - `beneath`: checked names of untrusted files, and `directory`: opens them;
//!   `limits`: bounds on untrusted input.
//! - `kernel_image`: a kernel that can be run; `modules`: its modules;
//!   `load_order`: which of them to load, and in which order; `module`: a module's
//!   own metadata; `vmlinux`: the kernel inside its bzImage.

mod add;
mod apt;
mod ar;
mod beneath;
mod command;
mod directory;
mod entry;
pub mod image;
pub mod kernel_image;
mod limits;
pub mod load_order;
mod mirror;
pub mod module;
pub mod modules;
mod package;
mod progress;
mod source;
pub mod store;
pub mod suite;
mod sums;
pub mod vmlinux;

pub use add::add;
pub use entry::Entry;
pub use kernel_image::KernelImage;
pub use progress::Progress;
pub use source::Source;
pub use store::Store;
