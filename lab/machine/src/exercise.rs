//! An exercise: a trainee in a shell looks for the cause of a fault. The commands
//! `hint`, `check` and `solution` give hints, a verdict and the cause.

use std::io;

use serde::{Deserialize, Serialize};

use super::commands::{Request, ShellCommand};
use super::recheck::{CANNOT, Checked, Rechecks};
use faultlab_base::error::{Error, Result};
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::{Environment, Shows};
use faultlab_report::standing::Tools;
use faultlab_report::{Style, exercise as report};

/// Whether the trainee knows which scenario an exercise is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExerciseName {
    /// The trainee chose it.
    Known,
    /// Its name is secret until it is solved. The same seed picks the same exercise.
    Secret {
        /// The seed.
        seed: u64,
    },
}

/// Checks that this kernel is not immune to the fault.
///
/// # Errors
/// [`Error::Lab`] if it is.
pub fn check_not_immune(scenario: &Scenario, env: &Environment) -> Result<()> {
    match scenario.era(env).filter(|era| era.shows == Shows::Immune) {
        Some(era) => Err(Error::Lab(format!(
            "{}: this kernel is immune to the fault ({}): there is no cause to find",
            scenario.card.name, era.kernels
        ))),
        None => Ok(()),
    }
}

/// An exercise in progress.
pub(super) struct Exercise<'s, 'a> {
    rechecks: Rechecks<'s, 'a>,
    /// The seed of a secret exercise; `None` once its name was revealed.
    seed: Option<u64>,
    hints: usize,
    attempts: usize,
    solved: bool,
}

impl<'s, 'a> Exercise<'s, 'a> {
    /// Makes an exercise of a fault arm that was just played, or whose play is still
    /// running.
    ///
    /// # Errors
    /// [`Error::Lab`] if the probes did not observe the fault, or if the probes
    /// cannot be played again.
    pub(super) fn of(rechecks: Rechecks<'s, 'a>, name: ExerciseName) -> Result<Self> {
        if rechecks.cured() {
            let met = report::symptom(rechecks.scenario, &rechecks.run.observed());
            return Err(Error::Lab(format!("there is nothing to find, the fault did not show: {met}")));
        }
        if let Some(why) = rechecks.impossible() {
            return Err(Error::Lab(format!("it is no exercise: {why}")));
        }
        let seed = match name {
            ExerciseName::Known => None,
            ExerciseName::Secret { seed } => Some(seed),
        };
        Ok(Self { rechecks, seed, hints: 0, attempts: 0, solved: false })
    }

    /// The text before the first prompt.
    pub(super) fn greeting(&self, tools: Tools, style: Style) -> String {
        let Rechecks { scenario, run, .. } = self.rechecks;
        report::greeting(scenario, run.env(), run.network().topology(), &run.observed(), tools, style)
    }

    /// The text after the shell has ended; empty if the exercise was solved.
    pub(super) fn farewell(&self, style: Style) -> String {
        if self.solved {
            return String::new();
        }
        let then = match self.seed {
            None => format!("`faultlab show {}` tells the story.", self.name()),
            Some(seed) => format!("--seed {seed} picks the same exercise again."),
        };
        style.paragraph("", &format!("Left unsolved, {}. {then}", self.tally()))
    }

    /// Answers a command.
    ///
    /// # Errors
    /// If the command has ended.
    pub(super) async fn answer(&mut self, mut request: Request) -> io::Result<()> {
        let style = request.style;
        let mut status = 0;
        match request.command {
            ShellCommand::Hint => request.say(self.hint(style)).await?,
            ShellCommand::Solution => {
                let revealed = self.reveal(style);
                request.say(revealed + &report::solution(self.rechecks.scenario, style)).await?;
            }
            ShellCommand::Check => {
                let Some(checked) = self.rechecks.answer(&mut request).await? else { return Ok(()) };
                let told = match checked {
                    // The probes were not played: this is no attempt.
                    Err(error) => {
                        status = CANNOT;
                        format!("It cannot be checked now: {error}")
                    }
                    Ok(checked) => {
                        status = u8::from(!checked.cured);
                        self.judge(&checked)
                    }
                };
                let revealed = if self.solved { self.reveal(style) } else { String::new() };
                request.say(style.paragraph("", &told) + &revealed).await?;
            }
        }
        request.done(status).await
    }

    /// Counts an attempt; returns the verdict on it.
    fn judge(&mut self, Checked { cured, seen, stopped }: &Checked) -> String {
        self.attempts += 1;
        self.solved = *cured;
        let met = match stopped {
            Some(error) => format!("the probes stopped early: {error}"),
            None => report::symptom(self.rechecks.scenario, seen),
        };
        let judged = if *cured { "Solved" } else { "Not solved" };
        format!("{judged}, {}: {met}", self.tally())
    }

    /// Reveals the name of a secret exercise, once; otherwise an empty string.
    fn reveal(&mut self, style: Style) -> String {
        let name = self.name();
        self.seed.take().map(|_| style.paragraph("", &format!("This was {name}."))).unwrap_or_default()
    }

    fn name(&self) -> &'static str {
        self.rechecks.scenario.card.name
    }

    fn hint(&mut self, style: Style) -> String {
        let hints = report::hints(self.rechecks.scenario, self.rechecks.run.env());
        let Some(hint) = hints.get(self.hints) else {
            return "There are no more hints; `solution` tells the story.\n".to_owned();
        };
        self.hints += 1;
        style.hanging(&format!("Hint {} of {}: ", self.hints, hints.len()), "  ", hint)
    }

    fn tally(&self) -> String {
        let of = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!("{} and {}", of(self.attempts, "attempt"), of(self.hints, "hint"))
    }
}
