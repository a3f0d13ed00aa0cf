//! The result of a run of a command: its exit status, its line of JSON, its messages.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::libc;
use serde::Serialize;

use super::{duration, is_watched};
use faultlab_base::error::Error;
use faultlab_base::{terminal, text};
use faultlab_machine::exec::answers::OutFile;
use faultlab_machine::exec::order::{FILES_SIZE_MAX, OUTPUT_MAX};
use faultlab_machine::exec::out_path::DEPTH_MAX;
use faultlab_machine::exec::{ExecEnd, HowEnded};
use faultlab_machine::vm::program_named;

/// The exit status if a limit was reached, as timeout(1) has it.
const LIMIT: u8 = 124;
/// EX_SOFTWARE of sysexits.h: the guest's kernel panicked.
const PANICKED: u8 = 70;
/// EX_UNAVAILABLE of sysexits.h: the lab failed.
const UNAVAILABLE: u8 = 69;

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// The command ended, was ended by a limit other than `--timeout`, or could not be
    /// started.
    Ended(ExecEnd),
    /// The limit of `--timeout` was reached.
    WallLimit(Duration),
    /// The kernel panicked.
    Panicked(Error),
    /// The lab failed.
    Lab(Error),
}

/// A run of the command on one kernel.
#[derive(Debug)]
pub(super) struct Ran {
    pub kernel: String,
    pub release: String,
    pub virtual_limit: Duration,
    pub end: End,
    pub is_virtual: bool,
    pub in_guest: bool,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub not_found: BTreeSet<String>,
    pub files: Vec<OutFile>,
    pub wall: Duration,
}

/// A line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    kernel: &'a str,
    release: &'a str,
    status: Option<u8>,
    signal: Option<u8>,
    stdout: String,
    stderr: String,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Seconds {
    wall: f64,
    r#virtual: Option<f64>,
}

impl Ran {
    /// The exit status of faultlab for this run.
    pub(super) fn status(&self) -> u8 {
        match &self.end {
            End::Ended(end) => match end.how {
                HowEnded::Exited(status) => status,
                HowEnded::Signalled(signal) => 128 + signal,
                HowEnded::NotStarted(libc::ENOENT) => 127,
                HowEnded::NotStarted(_) => 126,
                HowEnded::OutOfTime | HowEnded::TooMuchOutput => LIMIT,
            },
            End::WallLimit(_) => LIMIT,
            End::Panicked(_) => PANICKED,
            End::Lab(_) => UNAVAILABLE,
        }
    }

    /// Why the command was ended or could not be started; `None` if it exited or was killed by
    /// a signal.
    pub(super) fn error(&self) -> Option<String> {
        let limit = duration::shown;
        match &self.end {
            End::Ended(end) => match end.how {
                HowEnded::Exited(_) | HowEnded::Signalled(_) => None,
                HowEnded::NotStarted(errno) => Some(format!(
                    "the command cannot be started: {}",
                    std::io::Error::from_raw_os_error(errno)
                )),
                HowEnded::OutOfTime => Some(format!(
                    "the command was ended after {} {}(--virtual-timeout)",
                    limit(self.virtual_limit),
                    if self.is_virtual { "of virtual time " } else { "" }
                )),
                HowEnded::TooMuchOutput => {
                    Some(format!("the command was ended after {} MiB of output", OUTPUT_MAX >> 20))
                }
            },
            End::WallLimit(most) => Some(format!("the command was ended after {} (--timeout)", limit(*most))),
            End::Panicked(error) | End::Lab(error) => Some(error.to_string()),
        }
    }

    /// How long it ran, in seconds of virtual time; `None` on a real clock.
    fn virtual_time(&self) -> Option<f64> {
        match &self.end {
            End::Ended(end) if self.is_virtual => Some(end.time.as_secs_f64()),
            _ => None,
        }
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        let (status, signal) = match &self.end {
            End::Ended(ExecEnd { how: HowEnded::Exited(status), .. }) => (Some(*status), None),
            End::Ended(ExecEnd { how: HowEnded::Signalled(signal), .. }) => (None, Some(*signal)),
            _ => (None, None),
        };
        text::json(&Line {
            kernel: &self.kernel,
            release: &self.release,
            status,
            signal,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
            seconds: Seconds { wall: self.wall.as_secs_f64(), r#virtual: self.virtual_time() },
            error: self.error(),
        })
    }

    /// Reports on standard error what the output of the command does not contain: the error,
    /// unless the JSON has it, commands that were not found, entries of $OUT that were not copied, and
    /// for a terminal the time that the run took.
    pub(super) fn explain(&self, json: bool) {
        if let Some(error) = self.error().filter(|_| !json) {
            terminal::say(&error);
        }
        for name in self.not_found.iter().filter(|_| self.in_guest) {
            terminal::say(&advice(name));
        }
        if let End::Ended(ExecEnd { left_out: left_out @ 1.., .. }) = &self.end {
            let what = if *left_out == 1 {
                "1 entry of $OUT was"
            } else {
                &format!("{left_out} entries of $OUT were")
            };
            terminal::say(&format!(
                "{what} not copied: links, special files, or beyond the limits of {} MiB, 10,000 entries, and {DEPTH_MAX} names in a path",
                FILES_SIZE_MAX >> 20
            ));
        }
        if is_watched() && !json {
            let kernel = format!("Linux {} ({})", text::line(&self.release), text::line(&self.kernel));
            let wall = self.wall.as_secs_f64();
            terminal::complain(&match self.virtual_time() {
                Some(seconds) => format!("{seconds:.1} s of virtual time in {wall:.1} s, {kernel}"),
                None => format!("{wall:.1} s, {kernel}"),
            });
        }
    }
}

/// A sentence that says how to provide a command that was not found.
fn advice(name: &str) -> String {
    match program_named(name) {
        Ok(Some(_)) => format!("{name} was not found there; bring it along: --with {name}"),
        Ok(None) => format!(
            "{name} was not found there, and is not on this machine; install it here, and bring it along: --with {name}"
        ),
        Err(error) => format!("{name} was not found there; {error}: --with PATH"),
    }
}
