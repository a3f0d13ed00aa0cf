//! Any command, in a guest or in a worker's namespaces: the same code runs it there.
//!
//! - `order`: the command, and its limits; `command`: starts it, passes on its
//!   output and ends it; `out_directory`: the files that it leaves in `$OUT`;
//!   `loopback`: its network at the start.
//! - `frames`: what is sent about it; `answers`: checks that on the other side.

pub mod answers;
pub(crate) mod command;
pub mod frames;
mod loopback;
pub mod order;
mod out_directory;

use faultlab_base::error::Result;

pub use answers::ExecRun;
pub use frames::{ExecEnd, HowEnded, Stream};
pub use order::ExecOrder;

/// Receives a command's output as it comes. An error ends the command.
pub type OnOutput<'a> = dyn FnMut(Stream, &[u8]) -> Result<()> + 'a;
