//! The store of kernels, and how kernels are added to it and read.
//!
//! - `store`: a directory of kernels, each with its metadata (`entry`) and checksums
//!   (`sums`); `add`: adds a kernel from a `source`, and reports `progress`. A source
//!   is a `suite` of a distribution (by `apt`, from a `mirror`), a `package` (an `ar`
//!   archive) or an `image`. `command`: runs apt's programs.
//! - `beneath`: checked names of untrusted files; `directory`: opens files by them;
//!   `limits`: limits on the size of untrusted input.
//! - `kernel_image`: a kernel that can be run; `modules`: its modules; `load_order`:
//!   which of them to load, and in which order; `module`: the metadata of one;
//!   `vmlinux`: the kernel in a bzImage.

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
