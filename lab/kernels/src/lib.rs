//! The kernels at hand.
//!
//! - `store`: the entries, each an `entry` under `sums`; `add`: how one gets
//!   there from its `source`, with `progress`: from a `suite` through `apt` and
//!   its `mirror` (each runs a `command`), from a `package` (an `ar` archive),
//!   from an `image`.
//! - `beneath`: a name from outside, and `directory`: where it is opened;
//!   `limits`: how much of what is from outside is taken in.
//! - `kernel_image`: one that can be run; `modules`: all that it has; `load_order`:
//!   which of them to load, and in which order; `module`: what one says of
//!   itself; `vmlinux`: the kernel out of its bzImage.

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
