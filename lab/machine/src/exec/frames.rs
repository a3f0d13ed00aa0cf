//! The messages about a command, in this order: output as it arrives, then the files
//! in `$OUT`, then the end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::{Frame, STDERR, STDOUT};

/// A directory in `$OUT`: its path, relative.
pub(super) const DIRECTORY: u8 = 4;
/// A file in `$OUT`: its mode (4 bytes, LE), and its path.
pub(super) const FILE: u8 = 5;
/// A piece of the content of the last [`FILE`].
pub(super) const CONTENT: u8 = 6;
/// The end: an [`ExecEnd`] in JSON.
pub(super) const END: u8 = 7;

/// An output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    /// How it ended.
    pub how: HowEnded,
    /// How long it ran, on the clock of the kernel that ran it; without the end of the
    /// processes that it left behind, and the sending of `$OUT`.
    pub time: Duration,
    /// How many entries of `$OUT` were left out: links, sockets, devices, and what
    /// exceeds the limits of sizes, numbers or paths.
    pub left_out: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HowEnded {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Signalled(u8),
    /// It could not be started, with this errno.
    NotStarted(i32),
    /// It exceeded its time limit.
    OutOfTime,
    /// It exceeded the limit of its output.
    TooMuchOutput,
}

pub(super) fn output(stream: Stream, bytes: &[u8]) -> Frame {
    Frame::new(if stream == Stream::Stdout { STDOUT } else { STDERR }, bytes)
}

pub(super) fn end(end: &ExecEnd) -> Frame {
    Frame::new(END, serde_json::to_vec(end).expect("it is plain data"))
}
