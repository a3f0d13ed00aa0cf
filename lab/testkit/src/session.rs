//! A program in a new session, so that a test can check that no process of it is left.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PATIENCE;

/// A program that is a session leader. Its descendants are in its session, unless they
/// call setsid(2).
#[derive(Debug)]
pub struct Session {
    child: Child,
}

impl Session {
    /// Starts the command. If its stdin is a terminal, it becomes the controlling terminal.
    pub fn start(command: &mut Command) -> Self {
        let lead = || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes a number. If stdin is not a terminal, it
            // fails and does nothing.
            #[allow(unsafe_code, reason = "nix wraps no TIOCSCTTY")]
            unsafe {
                nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0);
            }
            io::Result::Ok(())
        };
        // SAFETY: `lead` makes two system calls and allocates nothing.
        #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
        let command = unsafe { command.pre_exec(lead) };
        Self { child: command.spawn().expect("the program starts") }
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("the process is not waited for yet");
    }

    /// Waits for the program and returns its exit status; `None` if a signal ended it.
    ///
    /// # Panics
    /// If it has not ended after [`PATIENCE`].
    pub fn status(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the program does not end: {:?}", self.processes());
    }

    /// The processes of the session, as `PID (NAME) STATE`. Zombies are left out.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        self.members().map(|(_, words)| words).collect()
    }

    /// The processes of the session whose names start with `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Pid> {
        let begin = format!("({name}");
        self.members().filter(|(_, words)| words.contains(&begin)).map(|(pid, _)| pid).collect()
    }

    fn members(&self) -> impl Iterator<Item = (Pid, String)> {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        numbers.filter_map(|pid| Some((Pid::from_raw(pid.cast_signed()), self.member(pid)?)))
    }

    fn member(&self, pid: u32) -> Option<String> {
        // pid (comm) state ppid pgrp session ...; the process may end during the
        // read.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let (state, session) = (*fields.first()?, fields.get(3)?.parse::<u32>().ok()?);
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        // A zombie holds no resources, unless it is a thread-group leader whose other
        // threads still run.
        let dead = state == "Z" && threads < 2;
        (session == self.child.id() && !dead).then(|| format!("{name}) {state}"))
    }

    /// Waits until no process of the session is left, and returns the time since `since`.
    ///
    /// # Panics
    /// If one is left [`PATIENCE`] after `since`.
    #[allow(clippy::must_use_candidate, reason = "some only wait")]
    pub fn gone(&self, since: Instant) -> Duration {
        while !self.processes().is_empty() {
            assert!(since.elapsed() < PATIENCE, "there still is {:?}", self.processes());
            thread::sleep(Duration::from_millis(5));
        }
        since.elapsed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After a failed test. Workers and guests die with it: PR_SET_PDEATHSIG.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
