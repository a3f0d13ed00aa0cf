//! A shell beside an arm's network: the arm is played, and nothing is torn
//! down before the shell is left.
//!
//! The hosts get names for `ip netns`, in a mount namespace that only this
//! worker and its shell are in.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::here::BUDGET;
use crate::error::{Error, Result};
use crate::evidence::shared_log::SharedLog;
use crate::network::Host;
use crate::network::namespace::of_this_thread;
use crate::report::{Style, standing};
use crate::scenario::{Plan, Scenario};
use crate::stage::{Looks, Stage};

/// What bash runs before it prompts: says where one is, also where a start-up
/// file has made another prompt than that of the environment.
const PROMPT: &str =
    r#"[[ $PS1 == "($FAULTLAB_SCENARIO "* ]] || PS1="($FAULTLAB_SCENARIO $FAULTLAB_ARM) $PS1""#;

/// Where a shell reads and writes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Seat {
    /// Descriptors that the worker inherits, to be the shell's 0, 1 and 2.
    pub descriptors: [RawFd; 3],
    /// Whether the shell takes the terminal: its starter had it.
    pub foreground: bool,
    /// How wide the terminal is, and whether it has colours.
    pub style: Style,
}

/// Plays an arm, starts a shell beside it, and waits for its end. Returns the
/// shell's exit status, for one that a signal ended 128 and its number.
pub(super) async fn shell(scenario: &Scenario, plan: Plan<'_>, log: &SharedLog, seat: Seat) -> Result<u8> {
    // SAFETY: the starter made these three for this process to have, and
    // nothing else in it knows of them.
    #[allow(unsafe_code, reason = "descriptors that were inherited, see SAFETY")]
    let [stdin, stdout, stderr] = seat.descriptors.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let played = timeout(BUDGET, async {
        let stage = Stage::set_up(scenario, plan, log, Looks::default()).await?;
        (scenario.play)(&stage).await?;
        Ok(stage)
    });
    let stage = played.await.unwrap_or_else(|_| {
        Err(Error::Deadline {
            place: plan.arm.name.into(),
            condition: "the arm to be played".into(),
            waited: BUDGET,
        })
    })?;
    let met = stage.played();
    let failed = |tried: &str, e: io::Error| Error::kernel("shell", tried, e);
    name(stage.network().hosts()).map_err(|e| failed("name the hosts below /run/netns", e))?;
    let told = standing::standing(scenario, plan.arm, stage.network().topology(), &met, seat.style);
    let mut screen = File::from(stderr);
    // Where nobody reads it, the shell still works.
    let _ = screen.write_all(told.as_bytes());

    let program = env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(&program);
    command
        .stdin(stdin)
        .stdout(stdout)
        .stderr(screen)
        .env("FAULTLAB_SCENARIO", scenario.card.name)
        .env("FAULTLAB_ARM", plan.arm.name)
        .env("PS1", format!("({} {}) $ ", scenario.card.name, plan.arm.name))
        .env("PROMPT_COMMAND", PROMPT)
        .env("PATH", path())
        .kill_on_drop(true)
        .process_group(0);
    if seat.foreground {
        // SAFETY: descriptor 0 is the seat's by then; `take_terminal` makes a
        // few system calls and allocates nothing.
        #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
        unsafe {
            command.pre_exec(|| take_terminal(BorrowedFd::borrow_raw(0), getpid()));
        }
    }
    let mut child = command.spawn().map_err(|e| failed(&format!("start {}", program.display()), e))?;
    // The runtime goes on meanwhile: wires carry their frames.
    let status = child.wait().await.map_err(|e| failed("wait", e))?;
    drop(stage);
    Ok(code(status))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// `ip`, `nft` and `tc` are where a user's PATH may not lead.
fn path() -> String {
    let path = env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    path + ":/usr/local/sbin:/usr/sbin:/sbin"
}

/// The terminal, while other processes may have it.
#[must_use = "it is given back when this is dropped"]
#[derive(Debug)]
pub(super) struct Terminal(Option<OwnedFd>);

impl Terminal {
    /// Remembers the terminal behind a descriptor, if this process is in its
    /// foreground.
    pub(super) fn of(descriptor: &OwnedFd) -> Self {
        let ours = tcgetpgrp(descriptor).is_ok_and(|group| group == getpgrp());
        Self(ours.then(|| descriptor.try_clone().ok()).flatten())
    }

    /// Whether this process had it.
    pub(super) fn is_ours(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(terminal) = &self.0 {
            // A terminal that hung up is nobody's.
            let _ = take_terminal(terminal.as_fd(), getpgrp());
        }
    }
}

/// Makes a process group the foreground of a terminal, from its background,
/// where the kernel would stop the caller by SIGTTOU.
fn take_terminal(terminal: impl AsFd, group: Pid) -> io::Result<()> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let before = stop.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let taken = tcsetpgrp(terminal, group);
    before.thread_set_mask()?;
    Ok(taken?)
}

/// Gives the hosts the names that `ip netns` looks for.
fn name(hosts: &[Host]) -> io::Result<()> {
    let names = Path::new("/run/netns");
    if !names.is_dir() {
        cover_run()?;
        fs::create_dir(names)?;
    }
    mount(Some("tmpfs"), names, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    for host in hosts {
        let file = names.join(host.name());
        File::create(&file)?;
        bind(&descriptor(host.namespace()), &file)?;
    }
    Ok(())
}

/// Puts a tmpfs over /run with all that /run has in it: a directory that is
/// made there is on no disk, and nobody else sees it.
fn cover_run() -> io::Result<()> {
    let run = Path::new("/run");
    let before = File::open(run)?;
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
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
fn descriptor(file: &impl AsFd) -> std::path::PathBuf {
    of_this_thread(&format!("fd/{}", file.as_fd().as_raw_fd()))
}

fn bind(what: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(what), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}
