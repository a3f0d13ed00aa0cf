//! Limits on input from outside: guests, files, packages.
//!
//! An outcome that this program made stays far below all of these: it has 12 arms,
//! 20 rows and 20 kB of JSON.

use std::time::Duration;

/// The longest text (a reason, a line of a log), in bytes. Longer text is cut.
pub const TEXT: usize = 16 << 10;

/// The longest name or table cell, in bytes. Longer text is cut: breaking a word
/// into the lines of a column takes quadratic time.
pub const CELL: usize = 1 << 10;

/// The most arms in an outcome. More are an error.
pub const ARMS: usize = 64;

/// The most distinct rows in all arms of an outcome, and the most entries in a map.
/// More are an error.
pub const ROWS: usize = 256;

/// The most lines in a list, such as a log or the evidence of a host; further lines
/// are cut. Also the most probes and the most conntrack events in a capture; more are
/// an error.
pub const LINES: usize = 20_000;

/// The most interfaces in a capture, and addresses of one interface. More are an
/// error.
pub const INTERFACES: usize = 1_000;

/// The most frames in a capture. More are an error.
pub const FRAMES: usize = 30_000;

/// The longest line of JSON in a file, in bytes.
pub const JSON_LINE: usize = 16 << 20;

/// The total size of all files in a merge, in bytes.
pub const MERGED: u64 = 256 << 20;

/// The most outcomes in a merge.
pub const OUTCOMES: usize = 10_000;

/// The most kernels in a merge; each is a column of the matrix.
pub const KERNELS: usize = 256;

/// The most scenarios in a merge; each is a row of the matrix.
pub const SCENARIOS: usize = 256;

/// The longest part of a file name that is made from text, in bytes. NAME_MAX in
/// linux/limits.h, 255, covers all parts together.
pub const FILE_NAME: usize = 64;

/// The longest duration of an arm, ten years. A longer one is an error.
pub const TIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
