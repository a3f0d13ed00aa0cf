//! The paths in `$OUT` that are sent back. The sender leaves all others out, and the
//! receiver refuses them, by the same rule.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// include/uapi/linux/limits.h: PATH_MAX, with the zero byte at the end.
const PATH_MAX: usize = 4096;
/// The maximum number of names in a path.
pub const DEPTH_MAX: usize = 64;

/// The path, relative to `$OUT`, if it consists of plain names and is neither too long
/// nor too deep.
pub(super) fn beneath(bytes: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(bytes));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let count = path.components().count();
    let good = plain
        && (1..=DEPTH_MAX).contains(&count)
        && bytes.len() < PATH_MAX
        && !bytes.contains(&0)
        // components() ignores `a/./b`, `a//b` and `a/`.
        && bytes.split(|byte| *byte == b'/').count() == count;
    good.then(|| path.to_owned())
}
