//! New namespaces for a test process, and what the confinement of a worker has in
//! common with them.
//!
//! The process leaves the namespaces it was started in. So it cannot change the
//! machine's network, and the kernel frees everything it made there when its first
//! process ends, whatever the reason.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::exit;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid, getppid};
use serde::{Deserialize, Serialize};

use faultlab_base::error::{Error, Missing, Result};

/// The privileges of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Root of its own user namespace, without power over the machine's.
    UserNamespace,
    /// Root of the machine, in its own network, mount and pid namespaces.
    Root,
}

impl Privilege {
    /// The privilege that the user of this process already has.
    #[must_use]
    pub fn at_hand() -> Self {
        if geteuid().is_root() { Self::Root } else { Self::UserNamespace }
    }
}

/// Moves this process, which must have a single thread, into new namespaces.
///
/// The caller continues as process 1 of a pid namespace. The original process
/// only waits for it and exits with its status. When either dies, everything in
/// the namespaces dies. With a `parent`, both die with it, and exit at once if it
/// has already died.
///
/// The machine's files stay writable: this is for tests, which run no program but
/// themselves. Workers use `machine::confinement`, which also makes the files
/// read-only.
///
/// # Errors
/// [`Error::Missing`], with the cause and the remedy, if the machine does not
/// allow it.
pub fn isolate(privilege: Privilege, parent: Option<Pid>) -> Result<()> {
    if let Some(parent) = parent {
        die_with_this_parent(parent)?;
    }
    raise_open_files();
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if privilege == Privilege::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| unshare_error(errno, "namespaces"))?;
    if privilege == Privilege::UserNamespace {
        let map = |file: &str, text: String| {
            let failed = |e| explain_denial(Error::kernel("user namespace", format!("write {file}"), e));
            fs::write(file, text).map_err(failed)
        };
        // Required before an unprivileged process may map its group
        // (user_namespaces(7)); the file is new in Linux 3.19.
        let _ = fs::write("/proc/self/setgroups", "deny");
        map("/proc/self/uid_map", format!("0 {uid} 1"))?;
        map("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    // unshare() of a user namespace clears the parent-death signal.
    if let Some(parent) = parent {
        die_with_this_parent(parent)?;
    }
    // It stays open for the life of this process.
    std::mem::forget(first_process(|_, _| {})?);
    let private = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    private.map_err(|e| explain_denial(Error::kernel("mount namespace", "make / private", e)))?;
    // Not allowed in a container that covers parts of /proc. Then the outer /proc
    // stays, in which /proc/thread-self is still right.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, None::<&str>);
    Ok(())
}

/// AppArmor may allow a user namespace but deny every operation in it. If a
/// setting of the machine explains the error, returns that instead.
pub fn explain_denial(error: Error) -> Error {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => forbidding_setting().map_or(error, Error::Missing),
        _ => error,
    }
}

/// Makes the kernel kill this process when its parent dies.
///
/// # Errors
/// If the kernel refuses.
pub fn die_with_parent() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Error::kernel("worker", "PR_SET_PDEATHSIG", e))
}

/// Ties this process to its parent, or exits if the parent is already dead.
///
/// # Errors
/// If the kernel refuses.
pub fn die_with_this_parent(parent: Pid) -> Result<()> {
    die_with_parent()?;
    if getppid() != parent {
        exit(0);
    }
    Ok(())
}

/// 1,000 hosts need more descriptors than the usual soft limit.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Forks. The child returns with a socket to its parent. The parent serves the
/// other end, waits for the child and exits with its status.
///
/// # Errors
/// If no socket pair or process can be created.
pub fn first_process(serve: impl FnOnce(Pid, &UnixStream)) -> Result<UnixStream> {
    let (outside, inside) = UnixStream::pair().map_err(|e| Error::kernel("worker", "socketpair", e))?;
    // SAFETY: the process has one thread (unshare of a user or pid namespace
    // would have failed with EINVAL otherwise), so the child may do anything.
    #[allow(unsafe_code, reason = "fork, see SAFETY")]
    let forked = unsafe { fork() };
    match forked.map_err(|e| Error::kernel("worker", "fork", e))? {
        ForkResult::Child => {
            drop(inside);
            die_with_parent()?;
            exit_if_orphaned(&outside)?;
            Ok(outside)
        }
        ForkResult::Parent { child } => {
            drop(outside);
            serve(child, &inside);
            let status = loop {
                match waitpid(child, None) {
                    Err(nix::Error::EINTR) => {}
                    other => break other,
                }
            };
            drop(inside);
            exit(match status {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
                _ => 70,
            })
        }
    }
}

/// Exits if the parent died before the parent-death signal was set: then the
/// other end of the socket is closed.
///
/// # Errors
/// If the socket cannot be polled.
pub fn exit_if_orphaned(outside: &UnixStream) -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(outside.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(|e| Error::kernel("worker", "poll", e))?;
    if fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP)) {
        exit(0);
    }
    Ok(())
}

fn sysctl(key: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).ok().map(|v| v.trim().to_owned())
}

/// Why such namespaces are not available, in the machine's own terms.
pub fn unshare_error(errno: Errno, what: &str) -> Error {
    let missing = |what: &str, advice: &str| Error::missing(what, advice);
    match errno {
        Errno::EINVAL => missing(
            "a kernel feature (CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_PID_NS or CONFIG_IPC_NS)",
            "run on a kernel that has it",
        ),
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS => forbidding_setting().map_or_else(
            || {
                missing(
                    &format!("the permission to make namespaces (unshare: {})", errno.desc()),
                    "run as root; in a container, run it with --privileged or with a seccomp profile that \
                     allows unshare",
                )
            },
            Error::Missing,
        ),
        // Also if the limit is 0, which is a way to forbid it.
        Errno::ENOSPC if forbidding_setting().is_some() => {
            Error::Missing(forbidding_setting().expect("a cause"))
        }
        _ => Error::kernel(what, "unshare", errno),
    }
}

/// The setting that forbids unprivileged user namespaces on this machine, if
/// there is one.
#[must_use]
pub fn forbidding_setting() -> Option<Missing> {
    let missing = |what: String, advice: &str| Some(Missing { what, advice: advice.into() });
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
