//! An exercise: a trainee in a shell looks for the cause of a fault, and requests
//! hints and a verdict with commands on the shell's PATH.
//!
//! The commands are this program under other names. They send requests to the
//! worker over a socket beside them, and it answers in lines of JSON.

use std::convert::Infallible;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream as Client;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::played::play;
use super::{mounts, names};
use faultlab_base::error::{Error, Result};
use faultlab_engine::run::ArmRun;
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::{Environment, Recheck, Shows};
use faultlab_report::standing::Tools;
use faultlab_report::{Style, exercise as report};

/// The directory of the commands and the socket.
pub(super) const PLACE: &str = "/run/faultlab";
const SOCKET: &str = "/run/faultlab/.worker";

/// The requests of a trainee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExerciseCommand {
    /// The next hint.
    Hint,
    /// Play the probes again, on the network in its current state.
    Check,
    /// The whole story.
    Solution,
}

impl ExerciseCommand {
    /// All requests.
    pub const ALL: [Self; 3] = [Self::Hint, Self::Check, Self::Solution];

    /// The name of its command.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Check => "check",
            Self::Solution => "solution",
        }
    }

    /// The command that the program was started as, by its name.
    #[must_use]
    pub fn asked(program: &str) -> Option<Self> {
        let name = Path::new(program).file_name()?;
        Self::ALL.into_iter().find(|command| name == command.name())
    }
}

/// A request to the worker.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    command: ExerciseCommand,
    style: Style,
}

/// The worker's answers, one per line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// Text for the trainee.
    Text(String),
    /// The command's exit status; always the last answer.
    Done(u8),
}

/// Sends a request to the worker of the surrounding shell, passes its answers to
/// `tell` as they arrive, and returns the exit status: for a check, 1 if the fault
/// is still there.
///
/// # Errors
/// [`Error::Lab`] outside of an exercise; any error of `tell`.
pub fn ask<E: From<Error>>(
    command: ExerciseCommand,
    style: Style,
    mut tell: impl FnMut(&str) -> Result<(), E>,
) -> Result<u8, E> {
    let failed = |tried: &str, e: io::Error| Error::kernel(command.name(), tried, e);
    let mut worker = Client::connect(SOCKET).map_err(|_| {
        Error::Lab(format!(
            "{} works in the shell of `faultlab shell SCENARIO --exercise` only",
            command.name()
        ))
    })?;
    let question = serde_json::to_string(&Question { command, style }).expect("plain data");
    writeln!(worker, "{question}").map_err(|e| failed("ask the worker", e))?;
    for line in io::BufReader::new(worker).lines() {
        let line = line.map_err(|e| failed("hear the worker", e))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Text(text)) => tell(&text)?,
            Ok(Answer::Done(status)) => return Ok(status),
            Err(error) => return Err(Error::Lab(format!("the worker said {line:?}: {error}")).into()),
        }
    }
    Err(Error::Lab("the exercise has ended".into()).into())
}

/// Checks that the fault shows on this kernel.
///
/// # Errors
/// [`Error::Lab`] if it does not.
pub fn has_something(scenario: &Scenario, env: &Environment) -> Result<()> {
    match scenario.era(env).filter(|era| era.shows == Shows::Immune) {
        Some(era) => Err(Error::Lab(format!(
            "{}: there is nothing to find, this kernel does not show it ({})",
            scenario.card.name, era.kernels
        ))),
        None => Ok(()),
    }
}

/// The result of a check.
struct Verdict {
    /// Whether the symptom's row is the same as in a healthy network.
    solved: bool,
    /// What the probes met.
    met: String,
}

/// An exercise in progress.
pub(super) struct Exercise<'s, 'a> {
    scenario: &'s Scenario,
    run: &'s ArmRun<'a>,
    commands: UnixListener,
    /// How long the probes take in the network with the fault.
    takes: Duration,
    hints: usize,
    attempts: usize,
    solved: bool,
}

impl<'s, 'a> Exercise<'s, 'a> {
    /// Makes an exercise of a fault arm that was just played, or whose play goes
    /// on, and installs the commands where only this mount namespace has them.
    ///
    /// # Errors
    /// [`Error::Lab`] if the probes met nothing, or nothing the trainee does could
    /// be checked.
    pub(super) fn begin(scenario: &'s Scenario, run: &'s ArmRun<'a>, stays: bool) -> Result<Self> {
        let takes = run.elapsed();
        if cured(scenario, run) {
            let met = report::symptom(scenario, &run.observed());
            return Err(Error::Lab(format!("there is nothing to find, the fault did not show: {met}")));
        }
        if stays != (scenario.recheck == Recheck::Look) {
            return Err(Error::Lab("it is no exercise: what a trainee does could not be checked".into()));
        }
        let commands = install().map_err(|e| Error::kernel("exercise", format!("make {PLACE}"), e))?;
        Ok(Self { scenario, run, commands, takes, hints: 0, attempts: 0, solved: false })
    }

    /// The text that a trainee reads first.
    pub(super) fn greeting(&self, tools: Tools, style: Style) -> String {
        let topology = self.run.network().topology();
        let met = self.run.observed();
        report::greeting(self.scenario, self.run.env(), topology, &met, tools, style)
    }

    /// The text that a trainee reads last.
    pub(super) fn farewell(&self, style: Style) -> String {
        let name = self.scenario.card.name;
        let left = format!("Left unsolved, {}. `faultlab show {name}` tells the story.", self.tally());
        if self.solved { String::new() } else { style.paragraph("", &left) }
    }

    /// Answers commands, one after the other.
    pub(super) async fn serve(&mut self) -> Result<Infallible> {
        loop {
            let (command, _) =
                self.commands.accept().await.map_err(|e| Error::kernel("exercise", "accept", e))?;
            // An interrupted command does not read its answer.
            let _ = self.answer(BufReader::new(command)).await;
        }
    }

    async fn answer(&mut self, mut asker: BufReader<UnixStream>) -> io::Result<()> {
        let mut line = String::new();
        asker.read_line(&mut line).await?;
        let Question { command, style } = serde_json::from_str(&line)?;
        let mut status = 0;
        match command {
            ExerciseCommand::Hint => say(&mut asker, self.hint(style)).await?,
            ExerciseCommand::Solution => say(&mut asker, report::solution(self.scenario, style)).await?,
            ExerciseCommand::Check => {
                let takes = self.takes.as_secs() + 1;
                let begun = if self.looks() {
                    "What waits is looked at again.".to_owned()
                } else {
                    format!("The probes are played again; the first time it took {takes} s.")
                };
                say(&mut asker, format!("{begun}\n")).await?;
                // Before 6.0 a TIME_WAIT socket cannot be destroyed from outside.
                if !self.looks() && !self.run.env().kernel.at_least(6, 0) {
                    say(&mut asker, "This kernel's TIME_WAITs are waited for, up to a minute.\n".into())
                        .await?;
                }
                let mut gone = [0];
                let verdict = tokio::select! {
                    verdict = self.check() => verdict,
                    // The command sends nothing more, so this means that it was
                    // interrupted.
                    _ = tokio::io::AsyncReadExt::read(&mut asker, &mut gone) => return Ok(()),
                };
                let told = match verdict {
                    // Nothing was tried.
                    Err(error) => format!("It cannot be checked now: {error}"),
                    Ok(Verdict { solved, met }) => {
                        self.attempts += 1;
                        self.solved = solved;
                        let judged = if solved { "Solved" } else { "Not solved" };
                        format!("{judged}, {}: {met}", self.tally())
                    }
                };
                status = u8::from(!self.solved);
                say(&mut asker, style.paragraph("", &told)).await?;
            }
        }
        tell(&mut asker, &Answer::Done(status)).await
    }

    fn hint(&mut self, style: Style) -> String {
        let hints = report::hints(self.scenario, self.run.env());
        let Some(hint) = hints.get(self.hints) else {
            return "There are no more hints; `solution` tells the story.\n".to_owned();
        };
        self.hints += 1;
        style.hanging(&format!("Hint {} of {}: ", self.hints, hints.len()), "  ", hint)
    }

    /// Plays the probes on the network in its current state, or looks at the
    /// running ones again.
    ///
    /// # Errors
    /// If they cannot be played.
    async fn check(&mut self) -> Result<Verdict> {
        let played = if self.looks() {
            self.run.recheck().await;
            Ok(())
        } else {
            self.run.reset().await?;
            play(self.run).await.and_then(|()| self.run.check_wires())
        };
        let seen = self.run.observed();
        Ok(match played {
            // What failed after the symptom depended on something that the trainee
            // removed.
            Err(error) if seen.get(self.scenario.symptom.row).is_none() => {
                Verdict { solved: false, met: format!("the probes did not come to their end: {error}") }
            }
            _ => {
                Verdict { solved: cured(self.scenario, self.run), met: report::symptom(self.scenario, &seen) }
            }
        })
    }

    /// Whether the play goes on and is only looked at again; otherwise it is
    /// repeated.
    fn looks(&self) -> bool {
        self.scenario.recheck == Recheck::Look
    }

    fn tally(&self) -> String {
        let of = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!("{} and {}", of(self.attempts, "attempt"), of(self.hints, "hint"))
    }
}

/// Whether the symptom's row is the same as in a healthy network.
fn cured(scenario: &Scenario, run: &ArmRun<'_>) -> bool {
    run.observed().get(scenario.symptom.row).is_some_and(|cell| cell == scenario.symptom.healthy)
}

fn install() -> io::Result<UnixListener> {
    let place = Path::new(PLACE);
    names::make(place)?;
    // In a guest, and without confinement, the program is only at its own path.
    let own = Path::new(mounts::PROGRAM);
    let program = if own.exists() { own.to_path_buf() } else { std::env::current_exe()? };
    for command in ExerciseCommand::ALL {
        symlink(&program, place.join(command.name()))?;
    }
    UnixListener::bind(SOCKET)
}

async fn say(command: &mut BufReader<UnixStream>, text: String) -> io::Result<()> {
    tell(command, &Answer::Text(text)).await
}

async fn tell(command: &mut BufReader<UnixStream>, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).expect("plain data");
    line.push(b'\n');
    command.write_all(&line).await
}
