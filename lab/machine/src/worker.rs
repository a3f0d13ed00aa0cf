//! The process that runs one scenario: this program again, told what to do on
//! standard input, reporting on standard output in lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::check::{self, Ability};
use super::isolation::{Privilege, isolate};
use super::shell::{self, Played, Seat, Streams};
use faultlab_base::error::{Error, Missing, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::voice::Opened;
use faultlab_engine::perform::{Order, perform};
use faultlab_engine::stage::Looks;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::{Clock, Ground};
use faultlab_net::kernel::Kernel;

/// The word that makes the program a worker, before any other argument. It is
/// followed by the process id of the starter.
pub const WORD: &str = "__worker";

/// What a worker is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// With which privileges.
    pub privilege: Privilege,
    /// What to do.
    pub task: Task,
}

/// What a worker does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Tries what this machine can do.
    Check,
    /// Runs a scenario.
    Run {
        /// Its name.
        scenario: String,
        /// Variants and remedies to narrow to.
        only: Vec<String>,
        /// Settings that were given.
        set: BTreeMap<String, String>,
        /// Gives the fault arm the network and the conduct of the control.
        without_cause: bool,
        /// What becomes of what is seen beside what probes meet; none where
        /// nobody is to look on.
        looks: Option<Looks>,
    },
    /// Plays one arm and starts a shell beside it.
    Shell {
        /// The scenario's name.
        scenario: String,
        /// The arm's.
        arm: String,
        /// Settings that were given.
        set: BTreeMap<String, String>,
        /// Descriptors that the worker inherits, to be the shell's 0, 1 and 2; a
        /// guest has a console.
        descriptors: [RawFd; 3],
        /// Who it is for.
        seat: Seat,
    },
}

impl Task {
    /// Whether what the kernel drops is to be seen.
    pub(super) fn asks_why(&self) -> bool {
        match self {
            Self::Check => true,
            Self::Run { looks, .. } => looks.is_some_and(|looks| looks.captures || looks.explains),
            Self::Shell { .. } => false,
        }
    }
}

/// What a worker reports, one a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A guest's init runs.
    Booted {
        /// Of which kernel.
        release: String,
    },
    /// An arm has ended.
    Arm(String),
    /// What the machine can do.
    Abilities(Vec<Ability>),
    /// The end of a scenario.
    Outcome(Box<Outcome>),
    /// The end of a shell, and its exit status.
    Left(u8),
    /// Nothing can run: a named thing is missing.
    Missing {
        /// The thing.
        what: String,
        /// How to get it.
        way_out: String,
    },
    /// Nothing can run: the lab failed.
    Failed(String),
}

/// Whether these arguments make the program a worker, and whose.
#[must_use]
pub fn asked(arguments: &[String]) -> Option<Pid> {
    match arguments {
        [_, word, parent] if word == WORD => parent.parse().ok().map(Pid::from_raw),
        _ => None,
    }
}

/// The life of a worker.
#[must_use]
pub fn main(catalogue: &Catalogue, parent: Pid) -> ExitCode {
    match work(catalogue, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Missing(Missing { what, way_out })) => report(&Report::Missing { what, way_out }),
        Err(error) => report(&Report::Failed(error.to_string())),
    }
}

fn report(report: &Report) -> ExitCode {
    let mut line = serde_json::to_vec(report).expect("reports are plain data");
    line.push(b'\n');
    // The starter may be gone; then the kernel ends this process too.
    match io::stdout().lock().write_all(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(catalogue: &Catalogue, parent: Pid) -> Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| Error::kernel("worker", "read the request", e))?;
    let request: Request =
        serde_json::from_str(&text).map_err(|e| Error::Lab(format!("worker: the request: {e}")))?;
    // With the privileges that this process still has.
    let opened = Opened::open(request.task.asks_why());
    isolate(request.privilege, Some(parent))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::kernel("worker", "start the runtime", e))?;
    let done = match request.task {
        Task::Check => {
            let abilities = LocalSet::new().block_on(&runtime, check::abilities(opened));
            Report::Abilities(abilities)
        }
        Task::Run { scenario, only, set, without_cause, looks } => {
            let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
            let ground = Ground::new(scenario, Kernel::running(), Clock::Real, &set);
            let order = Order { only: &only, without_cause, looks };
            let voice = opened.listen();
            let on_arm = |arm: &str| {
                report(&Report::Arm(arm.to_owned()));
            };
            let play = perform(scenario, &ground, order, &voice, catalogue.snapshots, &on_arm);
            Report::Outcome(Box::new(LocalSet::new().block_on(&runtime, play)))
        }
        Task::Shell { scenario, arm, set, descriptors, seat } => {
            let streams = Streams::inherited(descriptors);
            let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
            let ground = Ground::new(scenario, Kernel::running(), Clock::Real, &set);
            let arms = scenario.arms_on(&ground, &[]);
            let named = arms.iter().find(|a| a.name == arm);
            let arm = named.ok_or_else(|| Error::Lab(format!("no arm is named {arm:?}")))?;
            let voice = opened.listen();
            let shell = async {
                let stage = Played::stage(scenario, &ground, arm, &voice).await?;
                shell::beside(Played::on(scenario, &stage).await?, streams, seat).await
            };
            Report::Left(LocalSet::new().block_on(&runtime, shell)?)
        }
    };
    report(&done);
    Ok(())
}
