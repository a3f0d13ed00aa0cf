//! The file systems of a guest.

use std::{fs, io};

use nix::mount::{MsFlags, mount};

use super::{INIT, only_as_init};
use faultlab_base::error::{Error, Result};

/// A file system that the kernel provides.
struct Mount {
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    /// Whether a failure is ignored: not every kernel has it.
    optional: bool,
}

/// The mounts for a shell or a command: pseudo-terminals, shared memory, control
/// groups.
const MORE_MOUNTS: [Mount; 3] = [
    Mount { source: "devpts", target: "/dev/pts", kind: "devpts", optional: true },
    Mount { source: "tmpfs", target: "/dev/shm", kind: "tmpfs", optional: true },
    Mount { source: "cgroup2", target: "/sys/fs/cgroup", kind: "cgroup2", optional: true },
];

/// Documentation/admin-guide/devices.txt: "Compulsory links".
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

const MOUNTS: [Mount; 5] = [
    Mount { source: "proc", target: "/proc", kind: "proc", optional: false },
    Mount { source: "sysfs", target: "/sys", kind: "sysfs", optional: false },
    Mount { source: "devtmpfs", target: "/dev", kind: "devtmpfs", optional: false },
    Mount { source: "debugfs", target: "/sys/kernel/debug", kind: "debugfs", optional: true },
    // Since 4.1; before, it is a directory of debugfs.
    Mount { source: "tracefs", target: "/sys/kernel/tracing", kind: "tracefs", optional: true },
];

/// Mounts /proc, /sys, /dev, debugfs and tracefs.
///
/// # Errors
/// If the kernel lacks a required one.
pub fn mount_file_systems() -> Result<()> {
    mount_all(&MOUNTS)
}

/// Mounts a tmpfs on /tmp. Not for a guest with files of the machine, which may be
/// below /tmp.
///
/// # Errors
/// If the kernel lacks tmpfs.
pub fn mount_tmp() -> Result<()> {
    mount_all(&[Mount { source: "tmpfs", target: "/tmp", kind: "tmpfs", optional: false }])
}

/// Adds the mounts and links in /dev that programs expect.
///
/// # Errors
/// If a link cannot be made.
pub fn complete_dev() -> Result<()> {
    mount_all(&MORE_MOUNTS)?;
    for (link, target) in LINKS {
        match std::os::unix::fs::symlink(target, link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::kernel(INIT, format!("link {link}"), e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn mount_all(mounts: &[Mount]) -> Result<()> {
    only_as_init()?;
    for Mount { source, target, kind, optional } in mounts {
        let made = fs::create_dir_all(target);
        let mounted = made
            .and_then(|()| Ok(mount(Some(*source), *target, Some(*kind), MsFlags::empty(), None::<&str>)?));
        match mounted {
            Ok(()) => {}
            // CONFIG_DEVTMPFS_MOUNT: the kernel has mounted it already.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(_) if *optional => {}
            Err(e) => return Err(Error::kernel(INIT, format!("mount {kind} on {target}"), e)),
        }
    }
    Ok(())
}
