//! Runs a command in a guest or in a worker's namespaces, with the same code.
//!
//! - `order`: the command and its limits; `command`: starts it, sends its output and
//!   ends it; `out_directory`: sends the files in `$OUT`, at the
//!   paths that `out_path` permits; `loopback`: sets up `lo`.
//! - `frames`: the messages about a command; `answers`: checks and collects them.

pub mod answers;
pub(crate) mod command;
pub mod frames;
mod loopback;
pub mod order;
mod out_directory;
pub mod out_path;

use faultlab_base::error::Result;

pub use answers::ExecRun;
pub use frames::{ExecEnd, HowEnded, Stream};
pub use order::ExecOrder;

/// Receives a command's output as it arrives. An error ends the command.
pub type OnOutput<'a> = dyn FnMut(Stream, &[u8]) -> Result<()> + 'a;
