//! How much is taken from outside: from guests, from files, from packages.
//!
//! An honest outcome stays far below each of these: it has 12 arms, 20 rows, and
//! 20 kB of JSON.

use std::time::Duration;

/// The longest text, a reason or a line of a log, in bytes. What is longer is cut.
pub const TEXT: usize = 16 << 10;

/// The longest name or cell of a table, in bytes. What is longer is cut: to break a
/// word into the lines of a column takes as long as its length times itself.
pub const CELL: usize = 1 << 10;

/// The arms of an outcome. More are an error.
pub const ARMS: usize = 64;

/// The rows of an outcome, over all arms, and the entries of any other map. More
/// are an error.
pub const ROWS: usize = 256;

/// The lines of a list: a log, the evidence of a host. The rest is cut.
pub const LINES: usize = 20_000;

/// A line of JSON in a file, in bytes.
pub const JSON_LINE: usize = 16 << 20;

/// All files that are merged, in bytes.
pub const MERGED: u64 = 256 << 20;

/// The outcomes that are merged.
pub const OUTCOMES: usize = 10_000;

/// The kernels that are merged, each a column of the matrix.
pub const KERNELS: usize = 256;

/// The scenarios that are merged, each a row of the matrix.
pub const SCENARIOS: usize = 256;

/// The longest part of a file's name that is made from a text, in bytes.
/// linux/limits.h: NAME_MAX, 255, is for all parts together.
pub const FILE_NAME: usize = 64;

/// The latest time in a capture. Ten years are longer than any virtual time.
pub const TIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
