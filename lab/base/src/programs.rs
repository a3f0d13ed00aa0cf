//! The programs of this machine, and the search path for them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The file names of busybox; the second is that of Alpine's static build.
pub const BUSYBOX: [&str; 2] = ["busybox", "busybox.static"];

/// PATH, followed by the directories of `ip`, `nft` and `tc`, which a user's PATH
/// may lack.
#[must_use]
pub fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// The executable files with this name in the directories of [`path()`], in its order.
pub fn named(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = path();
    let all: Vec<_> = env::split_paths(&path).map(|dir| dir.join(name)).collect();
    all.into_iter().filter(|program| access(program, AccessFlags::X_OK).is_ok())
}

/// The default shell: bash, or /bin/sh where bash is not installed.
#[must_use]
pub fn shell() -> PathBuf {
    named("bash").next().unwrap_or_else(|| "/bin/sh".into())
}

/// Whether the program is busybox, whose `ip` lacks `netns`.
#[must_use]
pub fn is_busybox(program: &Path) -> bool {
    let named = |file: PathBuf| BUSYBOX.iter().any(|name| file.ends_with(name));
    fs::canonicalize(program).is_ok_and(named)
}
