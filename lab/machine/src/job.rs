//! The jobs of a worker and of a guest's init, their reports, and the code that
//! performs a job. `Site` is what differs between the two.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::check::Ability;
use super::exercise;
use super::played::Played;
use super::shell::{self, ShellOptions, Streams};
use super::stops::Stops;
use super::waiting::Waiting;
use faultlab_base::error::{Error, Missing, Result};
use faultlab_base::text::{Cell, Line, Lines};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::kernel_reports::KernelReports;
use faultlab_engine::perform::{RunOptions, perform};
use faultlab_engine::run::budget;
use faultlab_engine::scenario::Scenario;
use faultlab_engine::stage::CaptureOptions;
use faultlab_model::outcome::{Machine, Outcome, Seconds, Verdict};
use faultlab_model::scenario::{Clock, Environment};
use faultlab_net::kernel::Kernel;

/// A job of a worker or a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Runs a scenario.
    Run {
        /// Its name.
        scenario: String,
        /// The names of the variants and remedies to play; empty for all.
        only: Vec<String>,
        /// The settings given.
        set: BTreeMap<String, String>,
        /// Whether the fault arm is played without its edit, so that it equals the
        /// control arm.
        without_cause: bool,
        /// What to capture; `None` disables captures.
        capturing: Option<CaptureOptions>,
    },
    /// Plays one arm and starts a shell in its network.
    Shell {
        /// The scenario's name.
        scenario: String,
        /// The arm's.
        arm: String,
        /// The settings given.
        set: BTreeMap<String, String>,
        /// How the shell is started.
        options: ShellOptions,
    },
}

/// A report of a worker or a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A guest's init is running.
    Booted {
        /// The kernel's release.
        release: Cell,
    },
    /// How long the run that starts now may take.
    MayTake(Duration),
    /// An arm of a scenario has ended.
    ArmEnded(Cell),
    /// An arm was played, and the shell starts.
    ShellBegins,
    /// What the machine can do.
    Abilities(Vec<Ability>),
    /// The outcome of a scenario.
    Outcome(Box<Outcome>),
    /// A shell has ended with this exit status.
    Left(u8),
    /// The job cannot be done: something is missing.
    Missing {
        /// What is missing.
        what: Line,
        /// How to get it.
        advice: Line,
    },
    /// The job cannot be done: the machine has run out of a resource.
    Exhausted(Lines),
    /// The job cannot be done: the lab failed.
    Failed(Lines),
    /// The worker was stopped, and has continued.
    Continued,
}

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        match error {
            Error::Missing(Missing { what, advice }) => {
                Self::Missing { what: what.into(), advice: advice.into() }
            }
            Error::Exhausted(sentence) => Self::Exhausted(sentence.into()),
            error => Self::Failed(error.to_string().into()),
        }
    }
}

/// The process that performs a job: a worker, or a guest's init.
pub(super) trait Site {
    /// The kind of machine.
    fn machine(&self) -> Machine;

    /// The clock that the kernel's timers follow.
    fn clock(&self) -> Clock;

    /// Sends a report.
    fn report(&self, report: &Report) -> Result<()>;

    /// Where to show progress before a shell starts; `None` if another process shows
    /// it.
    fn screen(&self) -> Result<Option<OwnedFd>>;

    /// The input and output of a shell.
    fn streams(&self, options: &ShellOptions) -> Result<Streams>;

    /// Whether a shell is confined, which is then explained to the user.
    fn confines(&self) -> bool;

    /// Records that the shell has ended.
    fn shell_left(&self) -> Result<()>;
}

/// The runtime of a process that does jobs.
///
/// # Errors
/// If the kernel refuses a descriptor.
pub(super) fn runtime(place: &'static str) -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::kernel(place, "start the runtime", e))
}

impl Job {
    /// Runs all arms of a scenario with the default settings, without captures.
    #[must_use]
    pub fn run(scenario: &str) -> Self {
        Self::Run {
            scenario: scenario.to_owned(),
            only: vec![],
            set: BTreeMap::new(),
            without_cause: false,
            capturing: None,
        }
    }

    /// Whether drop reasons are needed.
    pub(super) fn asks_why(&self) -> bool {
        match self {
            Self::Run { capturing, .. } => {
                capturing.is_some_and(|capturing| capturing.captures || capturing.explains)
            }
            Self::Shell { .. } => false,
        }
    }

    /// Does the job and reports it; the end of the job is the last report.
    ///
    /// # Errors
    /// If it cannot be completed.
    pub(super) fn perform(
        &self,
        catalogue: &Catalogue,
        reports: &KernelReports,
        site: &dyn Site,
        runtime: &Runtime,
    ) -> Result<()> {
        let (Self::Run { scenario, set, .. } | Self::Shell { scenario, set, .. }) = self;
        let scenario = catalogue.find(scenario).map_err(Error::Lab)?;
        let env = Environment::new(scenario, Kernel::running(), site.clock(), set);
        let end = match self {
            Self::Run { only, without_cause, capturing, .. } => {
                let machine = site.machine();
                let options =
                    RunOptions { machine, only, without_cause: *without_cause, capturing: *capturing };
                let outcome = match run(catalogue, scenario, &env, options, reports, site, runtime) {
                    // The guest goes on with its next job, which may need less memory.
                    Err(error) if machine == Machine::Vm => exhausted(scenario, &env, &error),
                    outcome => outcome?,
                };
                Report::Outcome(Box::new(outcome))
            }
            Self::Shell { arm, options, .. } => {
                let shell = sit(scenario, &env, arm, *options, reports, site);
                Report::Left(LocalSet::new().block_on(runtime, shell)?)
            }
        };
        site.report(&end)
    }
}

/// The outcome of a scenario that failed in a guest. The host accepts it only with the
/// settings that it asked for and with the clock of the guest.
fn exhausted(scenario: &Scenario, env: &Environment, error: &Error) -> Outcome {
    let virtual_time = (env.clock == Clock::Virtual).then_some(0.0);
    Outcome {
        settings: env.settings.iter().collect(),
        seconds: Seconds { wall: 0.0, virtual_time, wire: None },
        ..Outcome::without_run_in(scenario, env, Machine::Vm, Verdict::Failed, error.to_string())
    }
}

/// Runs a scenario. If the process was stopped (SIGSTOP) meanwhile and the outcome is
/// not the expected one, runs it again: the kernel's timers went on while the process
/// could not react.
fn run(
    catalogue: &Catalogue,
    scenario: &Scenario,
    env: &Environment,
    options: RunOptions<'_>,
    reports: &KernelReports,
    site: &dyn Site,
    runtime: &Runtime,
) -> Result<Outcome> {
    // Arms that are played again have been reported already.
    let reported = RefCell::new(BTreeSet::new());
    let on_arm = |arm: &str| {
        if reported.borrow_mut().insert(arm.to_owned()) {
            // If this report is lost, the outcome still follows, or the reader is
            // gone.
            let _ = site.report(&Report::ArmEnded(arm.into()));
        }
    };
    let on_continued = || {
        let _ = site.report(&Report::Continued);
    };
    let stops = Stops::default();
    if options.machine == Machine::Here {
        site.report(&Report::MayTake(longest(scenario, env, options)))?;
    }
    loop {
        let play = perform(scenario, env, options, reports, catalogue.snapshots, &on_arm);
        let watched = async {
            tokio::select! {
                biased;
                failed = stops.watch(&on_continued) => match failed? {},
                outcome = play => outcome,
            }
        };
        let mut outcome = LocalSet::new().block_on(runtime, watched)?;
        if outcome.expected || !stops.taken() {
            outcome.seconds.virtual_time = (env.clock == Clock::Virtual).then_some(outcome.seconds.wall);
            return Ok(outcome);
        }
    }
}

/// How long a run may take.
fn longest(scenario: &Scenario, env: &Environment, options: RunOptions<'_>) -> Duration {
    budget(scenario.run_lasts(env, options.only), env.clock, options.machine)
}

/// Plays an arm, and starts a shell beside its network. Returns the shell's exit
/// status.
async fn sit(
    scenario: &Scenario,
    env: &Environment,
    arm: &str,
    options: ShellOptions,
    reports: &KernelReports,
    site: &dyn Site,
) -> Result<u8> {
    let arms = scenario.scripted_on(env, &[]);
    let arm = arms.iter().find(|scripted| scripted.arm.name == arm).ok_or_else(|| {
        Error::Lab(format!("the arm {arm} does not apply to this kernel with these settings"))
    })?;
    if options.exercise.is_some() {
        exercise::check_not_immune(scenario, env)?;
    }
    let run = Played::run(scenario, env, arm, reports).await?;
    let played = {
        let what = options.names(scenario.card.name, arm.arm.name);
        let screen = site.screen()?;
        let mut waiting = screen.map(|s| Waiting::on(s, format!("Playing {what}"), options.style.width));
        let latest = || {
            let (row, cell) = run.observed().0.pop().filter(|_| options.exercise.is_none())?;
            Some(format!("{row}: {cell}"))
        };
        let tick = async {
            match &mut waiting {
                Some(waiting) => waiting.tick(latest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            played = Played::on(scenario, &run) => played?,
            never = tick => match never {},
        }
    };
    let streams = site.streams(&options)?;
    site.report(&Report::ShellBegins)?;
    let left = shell::beside(played, streams, options, site.confines()).await;
    site.shell_left()?;
    left
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use faultlab_model::scenario::{Arms, Card, Setting};
    use faultlab_net::topology::Topology;

    use super::*;
    use crate::protocol::REPORT;
    use crate::protocol::frame::Frame;
    use crate::vm::answers::{Answer, Answers};

    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        let card = Card::for_test("many-flows", "");
        let arms = |_: &Environment| Arms::control("", Topology::new(), 0).fault("", |arm| arm.conduct = 1);
        let scenario = Scenario::new(card, ("row", "cell"), arms, async |_, _| Ok(()));
        Catalogue::new(vec![scenario.settings([Setting::seconds("silence", "", 4, 400)])], |_| None)
    });

    #[test]
    fn a_guest_that_has_too_little_of_a_resource_is_believed() {
        let job = Job::Run {
            scenario: "many-flows".to_owned(),
            only: vec![],
            set: BTreeMap::from([("silence".to_owned(), "9".to_owned())]),
            without_cause: false,
            capturing: None,
        };
        let Job::Run { set, .. } = &job else { unreachable!("it runs") };
        let scenario = CATALOGUE.find("many-flows").unwrap();
        let env = Environment::new(scenario, Kernel::running(), Clock::Virtual, set);
        let error = Error::Exhausted("office: accept: too many open files".to_owned());
        let outcome = exhausted(scenario, &env, &error);
        let release = env.kernel.release.clone();
        let mut answers = Answers::new(&CATALOGUE, &[job], &release, Clock::Virtual).unwrap();
        for report in [Report::Booted { release: release.into() }, Report::Outcome(Box::new(outcome))] {
            let answer = answers.take(&Frame::new(REPORT, serde_json::to_vec(&report).unwrap()));
            match answer.unwrap() {
                Answer::Booted => {}
                Answer::Outcome(outcome) => {
                    assert_eq!(outcome.verdict, Verdict::Failed);
                    assert_eq!(outcome.reason.as_deref(), Some("office: accept: too many open files"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
