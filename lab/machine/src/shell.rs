//! A shell in the network of an arm. The arm is played, and its network exists until
//! the shell ends.
//!
//! The hosts get names for `ip netns` (`names`), in the mount namespace of this
//! worker and its shell.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::background::from_background;
use super::belongings::Belongings;
use super::commands::{self, Commands, Request, ShellCommand};
use super::exercise::{Exercise, ExerciseName};
use super::guest::outputs::Outputs;
use super::played::Played;
use super::protocol::APPLETS;
use super::recheck::{CANNOT, Rechecks};
use super::{names, tmpfs};
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;
use faultlab_base::text::Cell;
use faultlab_model::outcome::Map;
use faultlab_report::Style;
use faultlab_report::standing::{self, Tools};

/// The tools for inspecting a network that are installed; busybox's do not count.
fn tools() -> Tools {
    let is_here =
        |name: &str| programs::named(name).next().is_some_and(|program| !programs::is_busybox(&program));
    Tools { ip: is_here("ip"), ss: is_here("ss"), tcpdump: is_here("tcpdump"), nft: is_here("nft") }
}

/// PROMPT_COMMAND, which bash runs before each prompt: puts the scenario and the arm
/// in front of PS1, even if a start-up file has replaced PS1.
const PROMPT: &str =
    r#"[[ $PS1 == "($FAULTLAB_SCENARIO "* ]] || PS1="($FAULTLAB_SCENARIO $FAULTLAB_ARM) $PS1""#;

/// How a shell is started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ShellOptions {
    /// Whether to make the shell the foreground process group of its terminal, as
    /// the process that started it was.
    pub foreground: bool,
    /// How wide the terminal is, and whether it has colours.
    pub style: Style,
    /// The exercise, which keeps the cause secret for the user to find; `None` for a
    /// plain shell.
    pub exercise: Option<ExerciseName>,
    /// Whether its input is not a terminal. Then a shell in a guest writes its
    /// output to pipes instead of the console.
    pub piped: bool,
}

impl ShellOptions {
    /// How to name the arm of a scenario in output before the shell starts. An
    /// exercise is not named.
    #[must_use]
    pub fn names(&self, scenario: &str, arm: &str) -> String {
        if self.exercise.is_some() {
            "the exercise".to_owned()
        } else {
            format!("the {arm} arm of {scenario}")
        }
    }
}

/// The input and output of a shell: its descriptors 0, 1 and 2.
#[derive(Debug)]
pub(super) struct Streams {
    descriptors: [OwnedFd; 3],
    /// The read ends of its outputs, if those are pipes that this process reads.
    outputs: Option<Outputs>,
}

impl Streams {
    /// The streams that a worker inherited.
    pub(super) fn inherited(descriptors: [RawFd; 3]) -> Self {
        // SAFETY: the starter made these three descriptors for this process, and
        // nothing else in it uses them.
        #[allow(unsafe_code, reason = "descriptors that were inherited, see SAFETY")]
        let descriptors = descriptors.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Self { descriptors, outputs: None }
    }

    /// A duplicate of standard error.
    pub(super) fn screen(&self) -> Result<OwnedFd> {
        self.descriptors[2].try_clone().map_err(|e| Error::kernel("shell", "dup", e))
    }

    /// The same terminal for all three.
    pub(super) fn of(terminal: OwnedFd) -> Result<Self> {
        let again = || terminal.try_clone().map_err(|e| Error::kernel("shell", "dup", e));
        Ok(Self { descriptors: [again()?, again()?, terminal], outputs: None })
    }

    /// This input, and pipes for the outputs.
    pub(super) fn piped(input: OwnedFd, [out, err]: [OwnedFd; 2], outputs: Outputs) -> Self {
        Self { descriptors: [input, out, err], outputs: Some(outputs) }
    }
}

/// The text before the first prompt, and the answers to commands.
enum Guide<'s, 'a> {
    /// A shell without an exercise: the cause is shown.
    Plain {
        rechecks: Rechecks<'s, 'a>,
        /// What the probes observed before the shell started.
        at_first: Map<Cell>,
    },
    /// An exercise: the cause is not shown.
    Exercise(Exercise<'s, 'a>),
}

impl Guide<'_, '_> {
    fn commands(&self) -> &'static [ShellCommand] {
        match self {
            Self::Plain { .. } => ShellCommand::PLAIN,
            Self::Exercise(_) => ShellCommand::EXERCISE,
        }
    }

    /// The text before the first prompt. `stays`: the play of the arm is still
    /// running.
    fn greeting(&self, stays: bool, style: Style) -> String {
        match self {
            Self::Plain { rechecks: Rechecks { scenario, run, .. }, at_first } => {
                let (arm, topology) = (run.arm(), run.network().topology());
                standing::standing(scenario, arm, topology, at_first, stays, tools(), style)
            }
            Self::Exercise(exercise) => exercise.greeting(tools(), style),
        }
    }

    /// Answers commands, one after the other.
    async fn serve(&mut self, commands: &Commands) -> Result<Infallible> {
        loop {
            let request = commands.next().await?;
            // An interrupted command does not read its answer.
            let _ = self.answer(request).await;
        }
    }

    /// Answers a command.
    ///
    /// # Errors
    /// If the command has ended.
    async fn answer(&mut self, mut request: Request) -> io::Result<()> {
        let (rechecks, at_first) = match self {
            Self::Exercise(exercise) => return exercise.answer(request).await,
            Self::Plain { rechecks, at_first } => (rechecks, at_first),
        };
        let style = request.style;
        let checked = match rechecks.impossible() {
            Some(why) => Err(Error::Lab(why.to_owned())),
            None => match rechecks.answer(&mut request).await? {
                Some(checked) => checked,
                None => return Ok(()),
            },
        };
        let (status, told) = match checked {
            Ok(checked) => {
                let stopped = checked.stopped.map(|error| error.to_string());
                let told = standing::rechecked(
                    rechecks.scenario,
                    at_first,
                    &checked.seen,
                    stopped.as_deref(),
                    style,
                );
                (u8::from(!checked.cured), told)
            }
            Err(error) => (CANNOT, style.paragraph("", &format!("It cannot be checked now: {error}"))),
        };
        request.say(told).await?;
        request.done(status).await
    }
}

/// Starts a shell in the network of an arm that was played, and waits for it to end.
/// Returns the shell's exit status, or 128 plus the number of the signal that killed
/// it. For a `confined` shell, what is writable is printed before the first prompt.
pub(super) async fn beside(
    played: Played<'_>,
    streams: Streams,
    options: ShellOptions,
    confined: bool,
) -> Result<u8> {
    let Played { scenario, run, rest } = played;
    let Streams { descriptors: [stdin, stdout, stderr], mut outputs } = streams;
    let failed = |tried: &str, e: io::Error| Error::kernel("shell", tried, e);
    names::name(run.network().hosts()).map_err(|e| failed("name the hosts below /run/netns", e))?;
    let rechecks = Rechecks::of(scenario, run, rest.is_some());
    let (name, role, mut guide) = match options.exercise {
        Some(known) => {
            let name = if known == ExerciseName::Known { scenario.card.name } else { "secret" };
            (name, "exercise", Guide::Exercise(Exercise::of(rechecks, known)?))
        }
        None => (scenario.card.name, run.arm().name, Guide::Plain { at_first: run.observed(), rechecks }),
    };
    let commands = Commands::install(guide.commands())?;
    let told = guide.greeting(rest.is_some(), options.style);
    let belongings = confined.then(Belongings::look);
    let limits = belongings.as_ref().map(|b| options.style.paragraph("", &b.told())).unwrap_or_default();
    let mut screen = File::from(stderr);
    // Errors are ignored: the shell works without a reader.
    let _ = from_background(|| screen.write_all((told + &limits).as_bytes()));

    let program = env::var_os("SHELL").filter(|s| !s.is_empty()).map_or_else(programs::shell, PathBuf::from);
    let mut command = Command::new(&program);
    command
        .stdin(stdin)
        .stdout(stdout)
        .stderr(screen.try_clone().map_err(|e| failed("dup", e))?)
        .env("FAULTLAB_SCENARIO", name)
        .env("FAULTLAB_ARM", role)
        .env("PS1", format!("({name} {role}) $ "))
        .env("PROMPT_COMMAND", PROMPT)
        .env("PATH", path())
        .kill_on_drop(true)
        .process_group(0);
    if let Some(belongings) = &belongings {
        belongings.give(&mut command);
    }
    if !options.style.colour {
        // A shell in a guest has a terminal even if the user's output is not one.
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
    // The runtime keeps carrying the frames of wires meanwhile.
    let status = tokio::select! {
        status = child.wait() => status,
        failed = guide.serve(&commands) => match failed? {},
        failed = Played::go_on(rest) => match failed? {},
        failed = pass_on(&mut outputs) => match failed? {},
    };
    if let Guide::Exercise(exercise) = guide {
        let _ = from_background(|| screen.write_all(exercise.farewell(options.style).as_bytes()));
    }
    if let Some(outputs) = &mut outputs {
        outputs.rest()?;
    }
    Ok(code(status.map_err(|e| failed("wait", e))?))
}

/// Sends what the shell writes to its pipes; without pipes, waits for ever.
async fn pass_on(outputs: &mut Option<Outputs>) -> Result<Infallible> {
    match outputs {
        Some(outputs) => outputs.pass_on().await,
        None => std::future::pending().await,
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// PATH, with the commands of faultlab first and busybox's applets last.
fn path() -> OsString {
    let mut path = OsString::from(format!("{}:", commands::PLACE));
    if Path::new(tmpfs::WRAPPERS).exists() {
        path.push(format!("{}:", tmpfs::WRAPPERS));
    }
    path.push(programs::path());
    if Path::new(APPLETS).exists() {
        path.push(format!(":{APPLETS}"));
    }
    path
}

/// The state of a terminal, restored when this is dropped.
#[must_use = "it is given back when this is dropped"]
#[derive(Debug)]
pub(super) struct Terminal(Option<(OwnedFd, Termios)>);

impl Terminal {
    /// Saves the modes of this terminal, if this process is in its foreground
    /// process group.
    pub(super) fn of(descriptor: &OwnedFd) -> Self {
        let ours = tcgetpgrp(descriptor).is_ok_and(|group| group == getpgrp());
        let remembered = || Some((descriptor.try_clone().ok()?, tcgetattr(descriptor).ok()?));
        Self(ours.then(remembered).flatten())
    }

    /// Whether this process was in the terminal's foreground process group.
    pub(super) fn is_ours(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some((terminal, modes)) = &self.0 {
            // Errors are expected after a hangup. The modes matter because a shell
            // that is killed while it edits a line leaves echo off.
            let _ = take_terminal(terminal.as_fd(), getpgrp());
            let _ = from_background(|| Ok(tcsetattr(terminal, SetArg::TCSANOW, modes)?));
        }
    }
}

/// Makes a process group the foreground process group of a terminal.
fn take_terminal(terminal: impl AsFd, group: Pid) -> io::Result<()> {
    from_background(|| Ok(tcsetpgrp(terminal, group)?))
}
