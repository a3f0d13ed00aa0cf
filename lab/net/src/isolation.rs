//! The namespaces in which everything happens.
//!
//! A worker leaves the namespaces it was started in before it does anything
//! else: it cannot change the machine, and the kernel frees all it made when
//! its first process ends, however that ends.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::exit;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid, getppid, pipe};
use serde::{Deserialize, Serialize};

use faultlab_base::error::{Error, Missing, Result};

/// With which privileges a worker acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// As root of a user namespace of its own: cannot touch the machine.
    UserNamespace,
    /// As root of the machine, in network, mount and pid namespaces of its own.
    Root,
}

impl Privilege {
    /// What the user of this process has anyway.
    #[must_use]
    pub fn at_hand() -> Self {
        if geteuid().is_root() { Self::Root } else { Self::UserNamespace }
    }
}

/// Moves this process, which must have one thread, into fresh namespaces.
///
/// The caller goes on as process 1 of a pid namespace; the process that was
/// there before only waits for it and ends as it ended. When either dies, so
/// does everything in the namespaces. With a `parent` both die with it, too,
/// and end at once if it is no longer their parent.
///
/// # Errors
/// [`Error::Missing`] with the cause and the way out where the machine does
/// not allow it.
pub fn isolate(privilege: Privilege, parent: Option<Pid>) -> Result<()> {
    if let Some(parent) = parent {
        live_as_child_of(parent)?;
    }
    raise_open_files();
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if privilege == Privilege::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| Error::Missing(why_not(errno)))?;
    // AppArmor lets a user namespace be made, and nothing be done in it.
    let powerless = |error: Error| match error.errno() {
        Some(libc::EPERM | libc::EACCES) if privilege == Privilege::UserNamespace => {
            forbidden().map_or(error, Error::Missing)
        }
        _ => error,
    };
    if privilege == Privilege::UserNamespace {
        let map = |file: &str, text: String| {
            let failed = |e| powerless(Error::kernel("user namespace", format!("write {file}"), e));
            fs::write(file, text).map_err(failed)
        };
        // Without this an unprivileged process may not map its group
        // (user_namespaces(7)); the file is new in Linux 3.19.
        let _ = fs::write("/proc/self/setgroups", "deny");
        map("/proc/self/uid_map", format!("0 {uid} 1"))?;
        map("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    // unshare() of a user namespace clears the parent-death signal.
    if let Some(parent) = parent {
        live_as_child_of(parent)?;
    }
    become_first_process()?;
    let private = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    private.map_err(|e| powerless(Error::kernel("mount namespace", "make / private", e)))?;
    // A container that covers parts of /proc forbids this. Then the outer /proc
    // stays, in which /proc/thread-self is still right.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, None::<&str>);
    Ok(())
}

fn die_with_parent() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Error::kernel("worker", "PR_SET_PDEATHSIG", e))
}

/// Ties this process to its parent, or ends it if that died before.
fn live_as_child_of(parent: Pid) -> Result<()> {
    die_with_parent()?;
    if getppid() != parent {
        exit(0);
    }
    Ok(())
}

/// 1,000 hosts need more descriptors than the usual soft limit.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Forks; the child returns, the parent waits for it and exits as it did.
fn become_first_process() -> Result<()> {
    let (watch, alive) = pipe().map_err(|e| Error::kernel("worker", "pipe", e))?;
    // SAFETY: the process has one thread (unshare of a user or pid namespace
    // would have failed with EINVAL otherwise), so the child may do anything.
    #[allow(unsafe_code, reason = "fork, see SAFETY")]
    let forked = unsafe { fork() };
    match forked.map_err(|e| Error::kernel("worker", "fork", e))? {
        ForkResult::Child => {
            drop(alive);
            die_with_parent()?;
            parent_lives(&watch)?;
            Ok(())
        }
        ForkResult::Parent { child } => {
            drop(watch);
            let status = loop {
                match waitpid(child, None) {
                    Err(nix::Error::EINTR) => {}
                    other => break other,
                }
            };
            drop(alive);
            exit(match status {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
                _ => 70,
            })
        }
    }
}

/// Ends this process if its parent died before the parent-death signal was
/// set: then the pipe has no writer any more.
fn parent_lives(watch: &OwnedFd) -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(|e| Error::kernel("worker", "poll", e))?;
    if fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP)) {
        exit(0);
    }
    Ok(())
}

fn sysctl(key: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).ok().map(|v| v.trim().to_owned())
}

/// Why namespaces cannot be had, in the machine's own terms.
fn why_not(errno: nix::Error) -> Missing {
    let missing = |what: &str, way_out: &str| Missing { what: what.into(), way_out: way_out.into() };
    if errno == nix::Error::EINVAL {
        return missing(
            "a kernel feature (CONFIG_USER_NS, CONFIG_NET_NS or CONFIG_PID_NS)",
            "run on a kernel that has it",
        );
    }
    if let Some(cause) = forbidden() {
        return cause;
    }
    missing(
        &format!("the permission to make namespaces (unshare: {})", errno.desc()),
        "run as root; in a container, run it with --privileged or with a seccomp profile that allows unshare",
    )
}

/// The setting of this machine that forbids unprivileged user namespaces, if
/// one does.
#[must_use]
pub fn forbidden() -> Option<Missing> {
    let missing = |what: String, way_out: &str| Some(Missing { what, way_out: way_out.into() });
    if sysctl("user.max_user_namespaces").as_deref() == Some("0") {
        return missing(
            "a user namespace (user.max_user_namespaces is 0)".into(),
            "run as root, or raise it: sysctl user.max_user_namespaces=10000",
        );
    }
    if sysctl("kernel.unprivileged_userns_clone").as_deref() == Some("0") {
        return missing(
            "a user namespace (kernel.unprivileged_userns_clone is 0)".into(),
            "run as root, or allow it: sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    if sysctl("kernel.apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return missing(
            "the power in a user namespace (AppArmor: kernel.apparmor_restrict_unprivileged_userns is 1)"
                .into(),
            "run as root, or allow it: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    None
}
