//! A child process, for what happens only to processes: the kernel blocks it in state
//! D, it is killed, or it becomes a zombie.
//!
//! Reading list: fork(2); signal-safety(7); waitid(2), WNOWAIT; proc(5),
//! /proc/PID/status.

use std::cell::{Cell, OnceCell};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, fs, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::time::{Instant, sleep};

use crate::task;
use faultlab_net::network::Host;
use faultlab_net::network::pending::PendingWait;

/// How long a process may take to reach its next sleep, on a busy machine.
const BUSY: Duration = Duration::from_secs(5);

/// A child of this process. It dies with this process, and is killed when it is
/// dropped, unless the kernel blocks it.
#[derive(Debug)]
#[must_use = "a child that is dropped is killed"]
pub struct Child {
    pid: Pid,
    name: String,
    reaped: Cell<bool>,
    wanted: OnceCell<Rc<PendingWait>>,
}

/// What a process is doing. Displays like ps(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is alive.
    Alive {
        /// The state letter of proc(5): `D` is an uninterruptible sleep.
        state: char,
        /// Whether a SIGKILL is pending.
        kill_pending: bool,
    },
    /// It has exited, and its parent has not waited for it.
    Zombie,
    /// It has exited, and its parent has collected its status.
    Reaped,
    /// The /proc here belongs to another pid namespace and does not list it.
    Unknown,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive { state, kill_pending: false } => write!(f, "{state}"),
            Self::Alive { state, kill_pending: true } => write!(f, "{state}, SIGKILL pending"),
            Self::Zombie => f.write_str("Z"),
            Self::Reaped => f.write_str("reaped"),
            Self::Unknown => f.write_str("?"),
        }
    }
}

impl Child {
    /// Forks. The child is called `name` (at most 15 bytes), does `work` in the
    /// namespaces of the calling thread, and exits with its result, an errno or 0.
    ///
    /// The child has copies of all descriptors of this process.
    ///
    /// # Safety
    /// This process may have other threads, which the child lacks. `work` may only
    /// make system calls (signal-safety(7)), with memory prepared before the fork; it
    /// may not allocate, lock or panic.
    ///
    /// # Errors
    /// If no process can be created.
    #[allow(unsafe_code, reason = "what a forked child may do is the caller's promise, see Safety")]
    pub(super) unsafe fn begin(name: &CStr, work: impl FnOnce() -> i32) -> io::Result<Self> {
        let parent = getpid().as_raw();
        // SAFETY: the child only makes system calls, as the caller promised.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: all four calls are system calls; `name` is a C string.
            0 => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
                let orphan = libc::getppid() != parent;
                libc::_exit(if orphan { libc::ESRCH } else { work() })
            },
            pid => Ok(Self {
                pid: Pid::from_raw(pid),
                name: name.to_string_lossy().into_owned(),
                reaped: Cell::new(false),
                wanted: OnceCell::new(),
            }),
        }
    }

    /// Records that the lab waits for it at a host.
    pub(super) fn wanted_at(&self, host: &Host, what: impl Into<String>) {
        let wanted = host.record_wait(what);
        self.place().map(|place| wanted.task.set(place));
        let _ = self.wanted.set(wanted);
    }

    /// Its directory in /proc, found through the list of this thread's children. This
    /// also works if /proc belongs to an outer pid namespace.
    pub(super) fn place(&self) -> Option<PathBuf> {
        let by_name = || {
            let children = fs::read_to_string("/proc/thread-self/children").ok()?;
            let mut places = children.split_whitespace().map(|child| Path::new("/proc").join(child));
            places.find(|place| {
                fs::read_to_string(place.join("comm")).is_ok_and(|comm| comm.trim_end() == self.name)
            })
        };
        task::place_of(u32::try_from(self.pid.as_raw()).ok()?).or_else(by_name)
    }

    /// What it is doing.
    #[must_use]
    pub fn life(&self) -> Life {
        if self.reaped.get() {
            return Life::Reaped;
        }
        if self.has_ended() {
            return Life::Zombie;
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        match parse_status(&status) {
            Some((name, state, kill_pending)) if name == self.name => Life::Alive { state, kill_pending },
            _ => Life::Unknown,
        }
    }

    /// What it is doing once it does not run: a sleeping process may wake up briefly,
    /// and may have to wait for a processor. Waits up to 5 s.
    pub async fn at_rest(&self) -> Life {
        let begun = Instant::now();
        loop {
            match self.life() {
                Life::Alive { state: 'R', .. } if begun.elapsed() < BUSY => {
                    sleep(Duration::from_millis(1)).await;
                }
                life => return life,
            }
        }
    }

    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.pid), flags), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
    }

    /// The kernel functions that it sleeps in, innermost first; `None` without the
    /// privilege to read stacks.
    #[must_use]
    pub fn sleeps_in(&self) -> Option<String> {
        let functions = task::stack(Path::new(&format!("/proc/{}", self.pid)));
        (!functions.is_empty()).then(|| functions.join(" <- "))
    }

    /// Waits until it has exited, without reaping it: it is a zombie then. False if
    /// it is still alive after `patience`.
    pub async fn ends_within(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !self.reaped.get() && !self.has_ended() {
            if begun.elapsed() >= patience {
                return false;
            }
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_millis(250));
        }
        true
    }

    /// Sends SIGKILL. A process in state D dies when it wakes up.
    pub fn kill(&self) {
        if !self.reaped.get() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Reaps it, if it has exited. Returns its result, or EINTR if a signal killed
    /// it; `None` if it is still alive.
    pub fn reap(&self) -> Option<io::Result<()>> {
        if self.reaped.get() {
            return None;
        }
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        self.reaped.set(!matches!(status, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)));
        match status {
            Ok(WaitStatus::Exited(_, 0)) => Some(Ok(())),
            Ok(WaitStatus::Exited(_, errno)) => Some(Err(io::Error::from_raw_os_error(errno))),
            Ok(WaitStatus::Signaled(..)) => Some(Err(io::Error::from_raw_os_error(libc::EINTR))),
            _ => None,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // A child that cannot die yet dies with this process.
        let _ = self.reap();
    }
}

/// Parses the name, the state and whether SIGKILL is pending from /proc/PID/status.
fn parse_status(text: &str) -> Option<(&str, char, bool)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let pending = |key: &str| value(key).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    // SIGKILL is bit 9, counted from 1.
    let kill = |mask: u64| mask & (1 << (libc::SIGKILL - 1)) != 0;
    let state = value("State:")?.chars().next()?;
    Some((
        value("Name:")?,
        state,
        pending("SigPnd:").is_some_and(kill) || pending("ShdPnd:").is_some_and(kill),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_that_cannot_be_killed_displays_as_such() {
        let text = "Name:\tplugin\nUmask:\t0022\nState:\tD (disk sleep)\nSigPnd:\t0000000000000100\n\
                    ShdPnd:\t0000000000000100\n";
        assert_eq!(parse_status(text), Some(("plugin", 'D', true)));
        assert_eq!(Life::Alive { state: 'D', kill_pending: true }.to_string(), "D, SIGKILL pending");
        assert_eq!(parse_status(&text.replace("100", "000")), Some(("plugin", 'D', false)));
    }

    #[tokio::test]
    async fn an_exited_child_that_was_not_reaped_is_a_zombie() {
        // SAFETY: the child does nothing.
        #[allow(unsafe_code, reason = "see SAFETY")]
        let child = unsafe { Child::begin(c"nothing", || libc::ENODEV) }.expect("a process");
        assert!(child.ends_within(Duration::from_secs(10)).await);
        assert_eq!(child.life(), Life::Zombie);
        let met = child.reap().expect("an end").expect_err("ENODEV");
        assert_eq!(met.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(child.life(), Life::Reaped);
        assert!(child.reap().is_none());
    }

    proptest! {
        #[test]
        fn no_status_panics(text in "((Name|State|SigPnd|ShdPnd):[\t ]?[0-9a-gA-Z]{0,20}\n?){0,6}") {
            let _ = parse_status(&text);
        }
    }
}
