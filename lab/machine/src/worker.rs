//! A worker: this program, started again to do one job. It reads the request from
//! standard input and writes reports to standard output, as lines of JSON.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::check;
use super::confinement::{Room, confine};
use super::exec::{ExecOrder, command};
use super::job::{self, Job, Report, Site};
use super::names;
use super::shell::{ShellOptions, Streams};
use faultlab_base::error::{Error, Result};
use faultlab_base::terminal;
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::kernel_reports::Opened;
use faultlab_model::outcome::Machine;
use faultlab_model::scenario::Clock;
use faultlab_net::isolation::{Privilege, forbidding_setting};
use faultlab_net::network::namespace::close_all_but;

/// The first argument that makes the program a worker. It is followed by the
/// process id of the starter.
pub const WORD: &str = "__worker";

/// A request to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    /// The privileges to run with.
    pub privilege: Privilege,
    /// What to do.
    pub work: Work,
}

/// What a worker is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Work {
    /// Check what this machine can do.
    Check,
    /// Do a job without a shell.
    Do(Job),
    /// Do a job that starts a shell.
    Sit {
        /// The job.
        job: Job,
        /// Inherited descriptors for the shell's standard input, output and error.
        descriptors: [RawFd; 3],
        /// Whether the shell may act as the machine's root if it cannot be confined.
        unconfined: bool,
    },
    /// Run a command.
    Exec {
        /// The command.
        order: ExecOrder,
        /// The paths of its program, of `--with`, and of its standard input, which
        /// stay where they are if they are below a directory that is covered.
        keep: Vec<PathBuf>,
        /// The inherited descriptor to which frames are written.
        descriptor: RawFd,
    },
}

impl Work {
    /// Whether drop reasons are needed.
    fn asks_why(&self) -> bool {
        match self {
            Self::Check => true,
            Self::Exec { .. } => false,
            Self::Do(job) | Self::Sit { job, .. } => job.asks_why(),
        }
    }

    /// Which programs run in the worker's namespaces.
    ///
    /// # Errors
    /// [`Error::Lab`] if a command, or a shell without `--unconfined`, cannot be
    /// confined.
    fn room(&self, privilege: Privilege) -> Result<Room> {
        match self {
            Self::Check | Self::Do(_) => Ok(Room::Worker),
            Self::Sit { .. } | Self::Exec { .. } if privilege == Privilege::UserNamespace => Ok(Room::Person),
            Self::Exec { .. } => Err(Error::Lab(format!(
                "a command here could change this machine, as its root: there is no user namespace to confine \
                 it ({}); run it in a guest with --kernel",
                no_namespace()
            ))),
            Self::Sit { unconfined: true, .. } => Ok(Room::Unconfined),
            Self::Sit { .. } => Err(Error::Lab(format!(
                "a shell here could change this machine, as its root: there is no user namespace to confine it \
                 ({}); have it in a guest with --kernel, or accept that with --unconfined",
                no_namespace()
            ))),
        }
    }

    /// The descriptors that the worker inherits, besides its first three.
    fn descriptors(&self) -> &[RawFd] {
        match self {
            Self::Check | Self::Do(_) => &[],
            Self::Sit { descriptors, .. } => descriptors,
            Self::Exec { descriptor, .. } => std::slice::from_ref(descriptor),
        }
    }

    /// The paths that stay where they are although their directory is covered.
    fn keep(&self) -> &[PathBuf] {
        match self {
            Self::Exec { keep, .. } => keep,
            Self::Check | Self::Do(_) | Self::Sit { .. } => &[],
        }
    }
}

/// Why no user namespace can be created.
fn no_namespace() -> String {
    forbidding_setting().map_or_else(|| "the machine gives none".to_owned(), |cause| cause.what)
}

/// The process id of the starter, if these arguments make the program a worker.
#[must_use]
pub fn asked(arguments: &[String]) -> Option<Pid> {
    match arguments {
        [_, word, parent] if word == WORD => parent.parse().ok().map(Pid::from_raw),
        _ => None,
    }
}

/// The main function of a worker.
#[must_use]
pub fn main(catalogue: &Catalogue, parent: Pid) -> ExitCode {
    terminal::install_panic_hook();
    let done = work(catalogue, parent).or_else(|error| report(&error.into()));
    // Reporting fails if the starter has ended; then the kernel kills this process.
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(report: &Report) -> Result<()> {
    let mut line = serde_json::to_vec(report).expect("reports are plain data");
    line.push(b'\n');
    io::stdout().lock().write_all(&line).map_err(|e| Error::kernel("worker", "report", e))
}

fn work(catalogue: &Catalogue, parent: Pid) -> Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| Error::kernel("worker", "read the request", e))?;
    let request: Request =
        serde_json::from_str(&text).map_err(|e| Error::Lab(format!("worker: the request: {e}")))?;
    // Other descriptors may come from the starter's parent; a shell could use them to
    // reach the machine.
    close_all_but(&[&[0, 1, 2], request.work.descriptors()].concat());
    let room = request.work.room(request.privilege)?;
    // The kernel log and drop reasons need privileges that confine() drops.
    let opened = Opened::open(request.work.asks_why());
    confine(request.privilege, parent, room, request.work.keep())?;
    let runtime = job::runtime("worker")?;
    let (job, streams) = match request.work {
        Work::Check => {
            let abilities = LocalSet::new().block_on(&runtime, check::abilities(opened))?;
            return report(&Report::Abilities(abilities));
        }
        Work::Exec { order, descriptor, .. } => {
            exec(&order, descriptor)?;
            return report(&Report::Left(0));
        }
        Work::Do(job) => (job, None),
        Work::Sit { job, descriptors, .. } => (job, Some(Streams::inherited(descriptors))),
    };
    let worker = Worker { streams: RefCell::new(streams), room };
    job.perform(catalogue, &opened.listen(), &worker, &runtime)
}

/// Runs a command, and sends its output and the files in `$OUT` to this descriptor.
fn exec(order: &ExecOrder, descriptor: RawFd) -> Result<()> {
    // SAFETY: the starter made this descriptor for this process, and nothing else in
    // it uses it.
    #[allow(unsafe_code, reason = "a descriptor that was inherited, see SAFETY")]
    let to = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let _ = fcntl(&to, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    let mut to = File::from(to);
    // For `ip netns add`, as for the hosts of a shell.
    names::make(Path::new("/run/netns")).map_err(|e| Error::kernel("worker", "make /run/netns", e))?;
    command::prepare()?;
    command::run(order, &|| Ok(()), &mut |frame| {
        to.write_all(&frame.encode()).map_err(|e| Error::kernel("worker", "send output", e))
    })
}

/// This process, in its own namespaces.
struct Worker {
    streams: RefCell<Option<Streams>>,
    room: Room,
}

impl Site for Worker {
    fn machine(&self) -> Machine {
        Machine::Here
    }

    fn clock(&self) -> Clock {
        Clock::Real
    }

    fn report(&self, what: &Report) -> Result<()> {
        report(what)
    }

    fn screen(&self) -> Result<Option<OwnedFd>> {
        self.streams.borrow().as_ref().map(Streams::screen).transpose()
    }

    fn streams(&self, _: &ShellOptions) -> Result<Streams> {
        self.streams.take().ok_or_else(|| Error::Lab("worker: it was given no terminal for a shell".into()))
    }

    fn confines(&self) -> bool {
        self.room == Room::Person
    }

    fn shell_left(&self) -> Result<()> {
        Ok(())
    }
}
