//! A shell beside an arm's network: the arm is played, and nothing is torn down
//! before the shell ends.
//!
//! The hosts get names for `ip netns` (`names`), in a mount namespace that only
//! this worker and its shell are in.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::belongings::Belongings;
use super::exercise::{self, Exercise};
use super::played::Played;
use super::protocol::APPLETS;
use super::{names, tmpfs};
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;
use faultlab_report::Style;
use faultlab_report::standing::{self, Tools};

/// The available tools for inspecting a network.
fn tools() -> Tools {
    let is_here =
        |name: &str| programs::named(name).next().is_some_and(|program| !programs::is_busybox(&program));
    Tools { ip: is_here("ip"), ss: is_here("ss"), tcpdump: is_here("tcpdump"), nft: is_here("nft") }
}

/// Runs in bash before each prompt: names the current place, even if a start-up
/// file has replaced the prompt from the environment.
const PROMPT: &str =
    r#"[[ $PS1 == "($FAULTLAB_SCENARIO "* ]] || PS1="($FAULTLAB_SCENARIO $FAULTLAB_ARM) $PS1""#;

/// How a shell is started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ShellOptions {
    /// Whether to make the shell the terminal's foreground: its starter was.
    pub foreground: bool,
    /// How wide the terminal is, and whether it has colours.
    pub style: Style,
    /// Whether to keep the cause secret, for the user to find.
    pub exercise: bool,
}

/// The input and output of a shell: its descriptors 0, 1 and 2.
#[derive(Debug)]
pub(super) struct Streams([OwnedFd; 3]);

impl Streams {
    /// The streams that a worker inherited.
    pub(super) fn inherited(descriptors: [RawFd; 3]) -> Self {
        // SAFETY: the starter made these three descriptors for this process, and
        // nothing else in it uses them.
        #[allow(unsafe_code, reason = "descriptors that were inherited, see SAFETY")]
        Self(descriptors.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The same terminal for all three.
    pub(super) fn of(terminal: OwnedFd) -> Result<Self> {
        let again = || terminal.try_clone().map_err(|e| Error::kernel("shell", "dup", e));
        Ok(Self([again()?, again()?, terminal]))
    }
}

/// Starts a shell beside an arm that was played, and waits for it to end. Returns
/// the shell's exit status, or 128 plus the signal's number. A `confined` shell is
/// told what it can write to.
pub(super) async fn beside(
    played: Played<'_>,
    streams: Streams,
    options: ShellOptions,
    confined: bool,
) -> Result<u8> {
    let Played { scenario, run, rest } = played;
    let Streams([stdin, stdout, stderr]) = streams;
    let failed = |tried: &str, e: io::Error| Error::kernel("shell", tried, e);
    names::name(run.network().hosts()).map_err(|e| failed("name the hosts below /run/netns", e))?;
    let (role, told, mut exercise) = if options.exercise {
        let exercise = Exercise::begin(scenario, run, rest.is_some())?;
        ("exercise", exercise.greeting(tools(), options.style), Some(exercise))
    } else {
        let (arm, topology) = (run.arm(), run.network().topology());
        let seen = run.observed();
        let told = standing::standing(scenario, arm, topology, &seen, rest.is_some(), tools(), options.style);
        (arm.name, told, None)
    };
    let belongings = confined.then(Belongings::look);
    let limits = belongings.as_ref().map(|b| options.style.paragraph("", &b.told())).unwrap_or_default();
    let mut screen = File::from(stderr);
    // If nobody reads this, the shell still works.
    let _ = from_background(|| screen.write_all((told + &limits).as_bytes()));

    let program = env::var_os("SHELL").filter(|s| !s.is_empty()).map_or_else(programs::shell, PathBuf::from);
    let mut command = Command::new(&program);
    command
        .stdin(stdin)
        .stdout(stdout)
        .stderr(screen.try_clone().map_err(|e| failed("dup", e))?)
        .env("FAULTLAB_SCENARIO", scenario.card.name)
        .env("FAULTLAB_ARM", role)
        .env("PS1", format!("({} {role}) $ ", scenario.card.name))
        .env("PROMPT_COMMAND", PROMPT)
        .env("PATH", path(options.exercise))
        .kill_on_drop(true)
        .process_group(0);
    if let Some(belongings) = &belongings {
        belongings.give(&mut command);
    }
    if !options.style.colour {
        // A guest's console is a terminal, even if its output is shown without
        // colour.
        command.env("NO_COLOR", "1");
    }
    if options.foreground {
        // SAFETY: descriptor 0 is the shell's own by then; `take_terminal` makes a
        // few system calls and allocates nothing.
        #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
        unsafe {
            command.pre_exec(|| take_terminal(BorrowedFd::borrow_raw(0), getpid()));
        }
    }
    let mut child = command.spawn().map_err(|e| failed(&format!("start {}", program.display()), e))?;
    let serve = async {
        match &mut exercise {
            Some(exercise) => exercise.serve().await,
            None => std::future::pending().await,
        }
    };
    // The runtime keeps running meanwhile: wires carry their frames.
    let status = tokio::select! {
        status = child.wait() => status,
        failed = serve => match failed? {},
        failed = Played::go_on(rest) => match failed? {},
    };
    if let Some(exercise) = exercise {
        let _ = from_background(|| screen.write_all(exercise.farewell(options.style).as_bytes()));
    }
    Ok(code(status.map_err(|e| failed("wait", e))?))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The commands of an exercise come before all others.
fn path(exercise: bool) -> OsString {
    let mut path = OsString::from(if exercise { format!("{}:", exercise::PLACE) } else { String::new() });
    if Path::new(tmpfs::WRAPPERS).exists() {
        path.push(format!("{}:", tmpfs::WRAPPERS));
    }
    path.push(programs::path());
    if Path::new(APPLETS).exists() {
        path.push(format!(":{APPLETS}"));
    }
    path
}

/// A terminal while other processes use it.
#[must_use = "it is given back when this is dropped"]
#[derive(Debug)]
pub(super) struct Terminal(Option<(OwnedFd, Termios)>);

impl Terminal {
    /// Saves the terminal behind a descriptor, and its modes, if this process is in
    /// the foreground.
    pub(super) fn of(descriptor: &OwnedFd) -> Self {
        let ours = tcgetpgrp(descriptor).is_ok_and(|group| group == getpgrp());
        let remembered = || Some((descriptor.try_clone().ok()?, tcgetattr(descriptor).ok()?));
        Self(ours.then(remembered).flatten())
    }

    /// Whether this process was in its foreground.
    pub(super) fn is_ours(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some((terminal, modes)) = &self.0 {
            // A terminal that was hung up fails here. A shell that is killed while
            // it reads key by key leaves a terminal without echo.
            let _ = take_terminal(terminal.as_fd(), getpgrp());
            let _ = from_background(|| Ok(tcsetattr(terminal, SetArg::TCSANOW, modes)?));
        }
    }
}

/// Makes a process group the terminal's foreground.
fn take_terminal(terminal: impl AsFd, group: Pid) -> io::Result<()> {
    from_background(|| Ok(tcsetpgrp(terminal, group)?))
}

/// Performs an operation on a terminal for which the kernel would stop a background
/// process with SIGTTOU.
fn from_background<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let before = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = act();
    before.thread_set_mask()?;
    done
}
