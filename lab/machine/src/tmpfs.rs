//! File systems in memory, which only one worker and its shell see.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use faultlab_net::network::namespace::of_this_thread;

/// Programs that are started otherwise here than outside.
pub(super) const WRAPPERS: &str = "/run/.faultlab/bin";

/// What /run of the machine is not brought along: sockets of the user's own
/// services, the names of its network namespaces, and what is made here.
const LEFT: [&str; 4] = ["user", "netns", "faultlab", ".faultlab"];

/// Who owns what can be written: an id of this user namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// Root of this user namespace.
    pub(super) const ROOT: Self = Self { user: 0, group: 0 };
}

/// An empty file system in memory.
pub(super) fn tmpfs(on: &Path, owner: Owner, mode: &str) -> nix::Result<()> {
    let options = format!("mode={mode},uid={},gid={}", owner.user, owner.group);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), on, Some("tmpfs"), flags, Some(options.as_str()))
}

/// Mounts what is at one place at another one, too, with all below it.
pub(super) fn bind(what: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(what), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

/// Puts a tmpfs over /run with what /run has in it: a directory that is made
/// there is on no disk, and nobody else sees it. With an owner it is theirs to
/// write to, and the directories for names and commands are in it.
pub(super) fn cover_run(owner: Option<Owner>) -> io::Result<()> {
    let run = Path::new("/run");
    let before = File::open(run)?;
    tmpfs(run, owner.unwrap_or(Owner::ROOT), "755")?;
    for entry in fs::read_dir(descriptor(&before))?.flatten() {
        let (old, new, kind) = (entry.path(), run.join(entry.file_name()), entry.file_type()?);
        // A service that listens on a socket acts outside for who speaks to it.
        let is_left = kind.is_socket() || LEFT.iter().any(|left| entry.file_name() == *left);
        if owner.is_some() && is_left {
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(old)?, new)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&new)?;
        } else {
            File::create(&new)?;
        }
        // What cannot be bound is empty: a shell can do without.
        let _ = bind(&old, &new);
    }
    if owner.is_some() {
        for own in [Path::new("/run/netns"), Path::new("/run/faultlab"), Path::new(WRAPPERS)] {
            fs::create_dir_all(own)?;
        }
    }
    Ok(())
}

/// The path of an open file.
pub(super) fn descriptor(file: &impl AsFd) -> PathBuf {
    of_this_thread(&format!("fd/{}", file.as_fd().as_raw_fd()))
}
