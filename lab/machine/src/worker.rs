//! The process that runs one scenario: this program again, told what to do on
//! standard input, reporting on standard output in lines of JSON.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::check::{self, Ability};
use super::confinement::{Room, confine};
use super::shell::{self, Played, Seat, Streams};
use faultlab_base::error::{Error, Missing, Result};
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::voice::Opened;
use faultlab_engine::perform::{Order, perform};
use faultlab_engine::stage::CaptureOptions;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::{Clock, Ground};
use faultlab_net::isolation::{Privilege, forbidden};
use faultlab_net::kernel::Kernel;
use faultlab_net::network::namespace::close_all_but;

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
        looks: Option<CaptureOptions>,
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
        /// Whether it may act as root of the machine where it cannot be confined.
        unconfined: bool,
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

    /// What is to be in the worker's namespaces.
    ///
    /// # Errors
    /// [`Error::Lab`] where a shell cannot be confined and nobody accepted that.
    fn room(&self, privilege: Privilege) -> Result<Room> {
        match self {
            Self::Check | Self::Run { .. } => Ok(Room::Worker),
            Self::Shell { .. } if privilege == Privilege::UserNamespace => Ok(Room::Person),
            Self::Shell { unconfined: true, .. } => Ok(Room::Unconfined),
            Self::Shell { .. } => Err(Error::Lab(format!(
                "a shell here could change this machine, as its root: there is no user namespace to confine it \
                 ({}); have it in a guest with --kernel, or accept that with --unconfined",
                forbidden().map_or_else(|| "the machine gives none".to_owned(), |cause| cause.what)
            ))),
        }
    }

    /// The descriptors that the worker inherits beside its first three.
    fn descriptors(&self) -> &[RawFd] {
        match self {
            Self::Check | Self::Run { .. } => &[],
            Self::Shell { descriptors, .. } => descriptors,
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
        #[serde(deserialize_with = "text::line_from")]
        release: String,
    },
    /// An arm has ended.
    Arm(#[serde(deserialize_with = "text::line_from")] String),
    /// What the machine can do.
    Abilities(Vec<Ability>),
    /// The end of a scenario.
    Outcome(Box<Outcome>),
    /// The end of a shell, and its exit status.
    Left(u8),
    /// Nothing can run: a named thing is missing.
    Missing {
        /// The thing.
        #[serde(deserialize_with = "text::line_from")]
        what: String,
        /// How to get it.
        #[serde(deserialize_with = "text::line_from")]
        way_out: String,
    },
    /// Nothing can run: the machine has no more of something.
    Exhausted(#[serde(deserialize_with = "text::lines_from")] String),
    /// Nothing can run: the lab failed.
    Failed(#[serde(deserialize_with = "text::lines_from")] String),
    /// The worker was stopped, and goes on.
    Continued,
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
    terminal::tell_panics();
    match work(catalogue, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Missing(Missing { what, way_out })) => report(&Report::Missing { what, way_out }),
        Err(Error::Exhausted(sentence)) => report(&Report::Exhausted(sentence)),
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

/// How often this process was stopped (SIGSTOP) and continued.
#[derive(Debug, Default)]
struct Stops(Cell<bool>);

impl Stops {
    /// Counts them, and reports each.
    async fn count(&self) -> Result<Infallible> {
        let kind = SignalKind::from_raw(Signal::SIGCONT as i32);
        let mut continued = signal(kind).map_err(|e| Error::kernel("worker", "await SIGCONT", e))?;
        while continued.recv().await.is_some() {
            self.0.set(true);
            report(&Report::Continued);
        }
        std::future::pending().await
    }

    /// Whether there was one since this was last asked.
    fn taken(&self) -> bool {
        self.0.take()
    }
}

fn work(catalogue: &Catalogue, parent: Pid) -> Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| Error::kernel("worker", "read the request", e))?;
    let request: Request =
        serde_json::from_str(&text).map_err(|e| Error::Lab(format!("worker: the request: {e}")))?;
    // What the starter's starter left open is no way out.
    close_all_but(&[&[0, 1, 2], request.task.descriptors()].concat());
    let room = request.task.room(request.privilege)?;
    // With the privileges that this process still has.
    let opened = Opened::open(request.task.asks_why());
    confine(request.privilege, parent, room)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::kernel("worker", "start the runtime", e))?;
    let done = match request.task {
        Task::Check => {
            let abilities = LocalSet::new().block_on(&runtime, check::abilities(opened));
            Report::Abilities(abilities?)
        }
        Task::Run { scenario, only, set, without_cause, looks } => {
            let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
            let ground = Ground::new(scenario, Kernel::running(), Clock::Real, &set);
            let order = Order { only: &only, without_cause, looks };
            let voice = opened.listen();
            // Arms that are played again have been reported.
            let reported = RefCell::new(BTreeSet::new());
            let on_arm = |arm: &str| {
                if reported.borrow_mut().insert(arm.to_owned()) {
                    report(&Report::Arm(arm.to_owned()));
                }
            };
            let stops = Stops::default();
            let mut outcome;
            loop {
                let play = perform(scenario, &ground, order, &voice, catalogue.snapshots, &on_arm);
                let counted = async {
                    tokio::select! {
                        biased;
                        failed = stops.count() => match failed? {},
                        outcome = play => outcome,
                    }
                };
                outcome = LocalSet::new().block_on(&runtime, counted)?;
                // The kernel's timers went on while nobody answered them.
                if outcome.expected || !stops.taken() {
                    break;
                }
            }
            Report::Outcome(Box::new(outcome))
        }
        Task::Shell { scenario, arm, set, descriptors, seat, unconfined: _ } => {
            let streams = Streams::inherited(descriptors);
            let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
            let ground = Ground::new(scenario, Kernel::running(), Clock::Real, &set);
            let arms = scenario.scripted_on(&ground, &[]);
            let named = arms.iter().find(|scripted| scripted.arm.name == arm);
            let arm = named.ok_or_else(|| Error::Lab(format!("no arm is named {arm:?}")))?;
            let voice = opened.listen();
            let shell = async {
                let run = Played::run(scenario, &ground, arm, &voice).await?;
                shell::beside(Played::on(scenario, &run).await?, streams, seat, room == Room::Person).await
            };
            Report::Left(LocalSet::new().block_on(&runtime, shell)?)
        }
    };
    report(&done);
    Ok(())
}
