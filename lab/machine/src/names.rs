//! Names below /run that one worker and its shell see and nobody else: of hosts,
//! for `ip netns`, and a directory for what a shell finds on its PATH.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use faultlab_net::network::Host;
use faultlab_net::network::namespace::of_this_thread;

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
        cover_run()?;
        fs::create_dir(directory)?;
    }
    Ok(mount_tmpfs(directory)?)
}

fn mount_tmpfs(on: &Path) -> nix::Result<()> {
    mount(Some("tmpfs"), on, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
}

/// Puts a tmpfs over /run with all that /run has in it: a directory that is
/// made there is on no disk, and nobody else sees it.
fn cover_run() -> io::Result<()> {
    let run = Path::new("/run");
    let before = File::open(run)?;
    mount_tmpfs(run)?;
    for entry in fs::read_dir(descriptor(&before))?.flatten() {
        let (old, new, kind) = (entry.path(), run.join(entry.file_name()), entry.file_type()?);
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
    Ok(())
}

/// The path of an open file.
fn descriptor(file: &impl AsFd) -> PathBuf {
    of_this_thread(&format!("fd/{}", file.as_fd().as_raw_fd()))
}

fn bind(what: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(what), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}
