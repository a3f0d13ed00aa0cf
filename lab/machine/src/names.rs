//! Names below /run that one worker and its shell see and nobody else: of hosts,
//! for `ip netns`, and a directory for what a shell finds on its PATH.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use super::mounts::{self, Owner, bind, tmpfs};
use faultlab_net::network::Host;
use faultlab_net::network::namespace::of_this_thread;

/// What /run of the machine is not brought along: sockets of the user's own
/// services, the names of its network namespaces, and what is made here.
const LEFT: [&str; 4] = ["user", "netns", "faultlab", ".faultlab"];

/// Gives the hosts the names that `ip netns` looks for.
pub(super) fn name(hosts: &[Host]) -> io::Result<()> {
    let names = Path::new("/run/netns");
    make(names)?;
    for host in hosts {
        let file = names.join(host.name());
        File::create(&file)?;
        bind(&descriptor(host.namespace()), &file)?;
    }
    Ok(())
}

/// Makes an empty directory below /run, on a tmpfs of this mount namespace.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        cover_run(None)?;
        fs::create_dir(directory)?;
    }
    Ok(tmpfs(directory, Owner::ROOT, "755")?)
}

/// Puts a tmpfs over /run with what /run has in it: a directory that is made
/// there is on no disk, and nobody else sees it. With an owner it is theirs to
/// write to, and the directories of this file are in it.
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
        for own in [Path::new("/run/netns"), Path::new("/run/faultlab"), Path::new(mounts::WRAPPERS)] {
            fs::create_dir_all(own)?;
        }
    }
    Ok(())
}

/// The path of an open file.
pub(super) fn descriptor(file: &impl AsFd) -> PathBuf {
    of_this_thread(&format!("fd/{}", file.as_fd().as_raw_fd()))
}
