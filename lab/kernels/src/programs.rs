//! The programs of this machine, and where a shell looks for them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use faultlab_report::standing::Tools;

/// The names of busybox; Alpine's static one has the second.
pub(super) const BUSYBOX: [&str; 2] = ["busybox", "busybox.static"];

/// PATH, and behind it where `ip`, `nft` and `tc` are, where a user's may not lead.
pub(super) fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// The programs of this name, in the order in which they would be found.
pub(super) fn named(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = path();
    let all: Vec<_> = env::split_paths(&path).map(|dir| dir.join(name)).collect();
    all.into_iter().filter(|program| access(program, AccessFlags::X_OK).is_ok())
}

/// The shell of who has named none.
pub(super) fn shell() -> PathBuf {
    named("bash").next().unwrap_or_else(|| "/bin/sh".into())
}

/// Which of the tools that look into a network are here.
pub(super) fn tools() -> Tools {
    let is_here = |name: &str| named(name).next().is_some_and(|program| !is_busybox(&program));
    Tools { ip: is_here("ip"), ss: is_here("ss"), tcpdump: is_here("tcpdump"), nft: is_here("nft") }
}

/// Whether it is one of busybox's: its `ip` knows no netns.
pub(super) fn is_busybox(program: &Path) -> bool {
    let named = |file: PathBuf| BUSYBOX.iter().any(|name| file.ends_with(name));
    fs::canonicalize(program).is_ok_and(named)
}
