//! File systems in memory (tmpfs), and bind mounts, in a worker's mount namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use faultlab_net::network::namespace::of_this_thread;

/// The directory of wrappers for programs that need extra options in a shell.
pub(super) const WRAPPERS: &str = "/run/.faultlab/bin";

/// The entries of the machine's /run that a shell does not get: the sockets of the
/// users' sessions, the names of network namespaces, and the paths that are created
/// here.
const LEFT: [&str; 4] = ["user", "netns", "faultlab", ".faultlab"];

/// The owner of writable files, as ids of this user namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// Root of this user namespace.
    pub(super) const ROOT: Self = Self { user: 0, group: 0 };
}

/// Mounts an empty tmpfs.
pub(super) fn tmpfs(on: &Path, owner: Owner, mode: &str) -> nix::Result<()> {
    let options = format!("mode={mode},uid={},gid={}", owner.user, owner.group);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), on, Some("tmpfs"), flags, Some(options.as_str()))
}

/// Bind-mounts a file or a directory tree to another place.
pub(super) fn bind(what: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(what), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

/// Mounts a tmpfs over /run and bind-mounts the entries of the machine's /run in it,
/// so that directories can be created there without changing the machine's. With an
/// owner, that is, for a shell: sockets directly in /run and [`LEFT`] are left out,
/// and the directories for names and commands are created.
pub(super) fn cover_run(owner: Option<Owner>) -> io::Result<()> {
    let run = Path::new("/run");
    let before = File::open(run)?;
    tmpfs(run, owner.unwrap_or(Owner::ROOT), "755")?;
    for entry in fs::read_dir(descriptor(&before))?.flatten() {
        let (old, new, kind) = (entry.path(), run.join(entry.file_name()), entry.file_type()?);
        // A service acts outside on behalf of whoever connects to its socket. Sockets
        // in subdirectories, such as /run/dbus, stay reachable.
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
        // An entry that cannot be bound stays empty. A shell works without it.
        let _ = bind(&old, &new);
    }
    if owner.is_some() {
        for own in [Path::new("/run/netns"), Path::new("/run/faultlab"), Path::new(WRAPPERS)] {
            fs::create_dir_all(own)?;
        }
    }
    Ok(())
}

/// A path to an open file, in /proc.
pub(super) fn descriptor(file: &impl AsFd) -> PathBuf {
    of_this_thread(&format!("fd/{}", file.as_fd().as_raw_fd()))
}
