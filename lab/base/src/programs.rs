//! The programs of this machine, and where a shell looks for them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The names of busybox; Alpine's static one has the second.
pub const BUSYBOX: [&str; 2] = ["busybox", "busybox.static"];

/// PATH, and behind it where `ip`, `nft` and `tc` are, where a user's may not lead.
#[must_use]
pub fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// The programs of this name, in the order in which they would be found.
pub fn named(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = path();
    let all: Vec<_> = env::split_paths(&path).map(|dir| dir.join(name)).collect();
    all.into_iter().filter(|program| access(program, AccessFlags::X_OK).is_ok())
}

/// The shell of who has named none.
#[must_use]
pub fn shell() -> PathBuf {
    named("bash").next().unwrap_or_else(|| "/bin/sh".into())
}

/// Whether it is one of busybox's: its `ip` knows no netns.
#[must_use]
pub fn is_busybox(program: &Path) -> bool {
    let named = |file: PathBuf| BUSYBOX.iter().any(|name| file.ends_with(name));
    fs::canonicalize(program).is_ok_and(named)
}
