//! Isolates a worker from the machine by namespaces, and makes the machine's file
//! systems read-only for it.
//!
//! Two processes do this. The first stays outside, writes the id maps of the second
//! and waits for it. The second creates a mount namespace, as the machine's root or
//! as root of a user namespace, and makes its mounts read-only. Then it enters a
//! nested user namespace with a copy of that mount namespace. The kernel locks the
//! copied mounts: root there can neither unmount them nor make them writable, nor
//! mount a second /proc without the read-only /proc/sys.
//!
//! This does not hide the machine. /proc/sys/net is writable; it shows the worker's
//! network namespaces. A socket file on a read-only mount still accepts connections
//! from everyone whom its permissions allow. A worker that was started by a user has
//! that user's id outside, with all permissions of that id. SECURITY.md lists what a
//! shell can do.
//!
//! Without user namespaces ([`Privilege::Root`]) there is only the mount namespace,
//! and nothing is locked: the worker has CAP_SYS_ADMIN and could remount a file
//! system as writable.
//!
//! Reading list: user_namespaces(7), mount_namespaces(7), capabilities(7).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, getpid, setgroups, setresgid, setresuid};

use super::ids::{Ids, Range};
use super::mounts;
use super::syscalls;
use super::tmpfs::Owner;
use faultlab_base::error::{Error, Result};
use faultlab_net::isolation::{
    Privilege, die_with_parent, die_with_this_parent, exit_if_orphaned, explain_denial, first_process,
    raise_open_files, unshare_error,
};

/// Which programs run in the namespaces of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This program only.
    Worker,
    /// Also a shell or a command of the user, confined by a user namespace.
    Person,
    /// Also a shell that may act as the machine's root, which the user has accepted
    /// with `--unconfined`.
    Unconfined,
}

/// Moves this process, which must be single-threaded, into new namespaces, as
/// [`isolate`](faultlab_net::isolation::isolate) does, and makes the machine's file
/// systems read-only there. Unless `room` is [`Room::Worker`], /tmp, /var/tmp, /run
/// and /dev/shm are replaced by file systems in memory. Files at the paths in
/// `keep` stay where they are.
///
/// Without user namespaces ([`Privilege::Root`]) a worker keeps the capabilities
/// that networks need. One of them, CAP_SYS_ADMIN, reaches beyond its namespaces:
/// the caller must not start any other program there, except for a shell in
/// [`Room::Unconfined`], which keeps all capabilities.
///
/// # Errors
/// [`Error::Missing`] with the cause and the remedy if the machine does not allow
/// it.
pub fn confine(privilege: Privilege, parent: Pid, room: Room, keep: &[PathBuf]) -> Result<()> {
    die_with_this_parent(parent)?;
    raise_open_files();
    if room != Room::Worker {
        leave_keyring()?;
    }
    let unused = (privilege == Privilege::UserNamespace && geteuid().is_root())
        .then(|| Ids::unused(getpid().as_raw().cast_unsigned()))
        .flatten();
    // Root in a container may lack the capability to do this without a user
    // namespace.
    let unused = unused.filter(|_| unshare(CloneFlags::CLONE_NEWPID).is_ok());
    let inner = match (privilege, unused) {
        (Privilege::Root, _) => {
            unshare(CloneFlags::CLONE_NEWPID).map_err(|e| unshare_error(e, "pid namespace"))?;
            None
        }
        (Privilege::UserNamespace, Some(ids)) => Some(ids),
        (Privilege::UserNamespace, None) => {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
            unshare(flags).map_err(|e| unshare_error(e, "user namespace"))?;
            // unshare() of a user namespace clears the parent-death signal.
            die_with_this_parent(parent)?;
            let own = Ids { users: Range::single(user), groups: Range::single(group) };
            // Without this an unprivileged process may not map its group
            // (user_namespaces(7)); the file is new in Linux 3.19.
            let _ = fs::write("/proc/self/setgroups", "deny");
            map("self", own)
                .map_err(|e| explain_denial(Error::kernel("user namespace", "map its ids", e)))?;
            Some(Ids { users: Range::single(0), groups: Range::single(0) })
        }
    };
    let mut outside = first_process(|child, mut inside| {
        // Wait until the user namespace exists, then give it ids.
        if let Some(ids) = inner
            && let Ok(()) = inside.read_exact(&mut [0])
        {
            let done = map(&child.to_string(), ids);
            let errno = done.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
            let _ = inside.write_all(&errno.to_ne_bytes());
        }
    })?;
    let owner = match unused {
        Some(ids) => Owner { user: ids.users.outside, group: ids.groups.outside },
        None => Owner::ROOT,
    };
    let one_id = inner.is_some() && unused.is_none_or(|ids| ids.users.count == 1);
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| explain_denial(unshare_error(e, "mount namespace")))?;
    mounts::read_only().map_err(explain_denial)?;
    if room != Room::Worker {
        mounts::for_a_person(owner, one_id, keep).map_err(explain_denial)?;
    }
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    if inner.is_some() {
        let flags = flags | CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        unshare(flags).map_err(|e| unshare_error(e, "user namespace"))?;
        take_ids(&mut outside, unused.is_some())?;
    } else {
        unshare(flags).map_err(|e| unshare_error(e, "network namespace"))?;
    }
    if room != Room::Worker {
        syscalls::filter(one_id)?;
    }
    if privilege == Privilege::Root && room != Room::Unconfined {
        drop_capabilities()?;
    }
    // Changing ids or capabilities clears the parent-death signal.
    die_with_parent()?;
    exit_if_orphaned(&outside)?;
    // The socket stays open until this process ends; the process outside waits for
    // that. Nothing more is sent.
    std::mem::forget(outside);
    Ok(())
}

/// Writes the id maps of a process's user namespace.
fn map(process: &str, ids: Ids) -> std::io::Result<()> {
    fs::write(format!("/proc/{process}/uid_map"), ids.users.line())?;
    fs::write(format!("/proc/{process}/gid_map"), ids.groups.line())
}

/// Asks the process outside to write the id maps of this process's user namespace.
/// If it maps more than this process's own id (`all`), also switches to its root.
fn take_ids(outside: &mut UnixStream, all: bool) -> Result<()> {
    let failed = |tried: &str, e: std::io::Error| explain_denial(Error::kernel("user namespace", tried, e));
    let mut errno = [0; size_of::<i32>()];
    let asked = outside.write_all(&[0]).and_then(|()| outside.read_exact(&mut errno));
    asked.map_err(|e| failed("ask for its ids", e))?;
    match i32::from_ne_bytes(errno) {
        0 => {}
        errno => return Err(failed("map its ids", std::io::Error::from_raw_os_error(errno))),
    }
    if all {
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        let become_root = || {
            setgroups(&[])?;
            setresgid(group, group, group)?;
            setresuid(user, user, user)?;
            // prctl(2), PR_SET_DUMPABLE: without it the files in /proc/PID belong to
            // the machine's root.
            set_dumpable(true)
        };
        become_root().map_err(|e: Errno| failed("become its root", e.into()))?;
    }
    Ok(())
}

/// The capabilities of the machine's root that networks need without a user
/// namespace: setns(2) and mounts, interfaces and rules, packet sockets, ports
/// below 1024.
const KEPT: [Capability; 4] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
];

fn drop_capabilities() -> Result<()> {
    let failed = |e: caps::errors::CapsError| Error::Lab(format!("worker: drop capabilities: {e}"));
    let has = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| has.contains(capability)).collect();
    for capability in caps::read(None, CapSet::Bounding).map_err(failed)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

/// Joins a new, empty session keyring. A process possesses the keys of the session
/// keyring that it inherits, and may change them even after a change of its ids:
/// keyrings(7).
fn leave_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: numbers, and a null pointer that stands for no name.
    #[allow(unsafe_code, reason = "keyctl(2) has no wrapper; see SAFETY")]
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    match Errno::result(done) {
        // The kernel has no keys, or a seccomp profile forbids the call.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(Errno::EDQUOT) => Err(Error::Exhausted(
            "worker: join a session keyring: this user may have no more keys; raise kernel.keys.maxkeys"
                .into(),
        )),
        Err(errno) => Err(Error::kernel("worker", "join a session keyring", errno)),
    }
}
