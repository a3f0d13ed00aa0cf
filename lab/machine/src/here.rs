//! Runs scenarios and commands on the running kernel, in the namespaces of a worker.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::check::Ability;
use super::complaints::Complaints;
use super::exec::answers::{ExecAnswer, ExecAnswers};
use super::exec::{ExecOrder, ExecRun, OnOutput};
use super::exercise::ExerciseName;
use super::job::{Job, Report};
use super::protocol::Decoder;
use super::shell::{ShellOptions, Terminal};
use super::vm::ports::port;
use super::worker::{Request, WORD, Work};
use faultlab_base::error::{Error, Result};
use faultlab_model::outcome::Outcome;
use faultlab_net::isolation::Privilege;
use faultlab_report::Style;

/// The time limit of a worker before it reports how long its job may take; added to
/// that time afterwards.
const SLACK: Duration = Duration::from_secs(120);

/// The running kernel, ready to run scenarios.
#[derive(Debug, Clone)]
pub struct Here {
    executable: PathBuf,
    privilege: Privilege,
}

/// What this machine supports, and with which privileges.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The machine.
    pub here: Here,
    /// The abilities, available or missing.
    pub abilities: Vec<Ability>,
}

impl Here {
    /// Determines which privileges scenarios run with on this machine, and what it
    /// supports. A user namespace is preferred. If a required ability is missing
    /// there and this process is root, scenarios run as root without one.
    ///
    /// `executable` is the program to start as a [`worker`](super::worker), usually
    /// this one.
    ///
    /// # Errors
    /// [`Error::Missing`], with the cause and the remedy, if no worker can be
    /// confined.
    pub async fn find(executable: &Path) -> Result<Checked> {
        let rootless = Self { executable: executable.into(), privilege: Privilege::UserNamespace };
        let found = rootless.check().await;
        if let Err(Error::Exhausted(_)) = &found {
            return Ok(Checked { here: rootless, abilities: found? });
        }
        let denied = match &found {
            Ok(abilities) => abilities.iter().any(|a| !a.optional && a.missing.is_some()),
            Err(_) => true,
        };
        if denied && nix::unistd::geteuid().is_root() {
            let root = Self { privilege: Privilege::Root, ..rootless };
            let abilities = root.check().await?;
            return Ok(Checked { here: root, abilities });
        }
        Ok(Checked { here: rootless, abilities: found? })
    }

    /// The privileges that scenarios run with.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    async fn check(&self) -> Result<Vec<Ability>> {
        match self.ask(Work::Check, &mut |_| {}).await? {
            Report::Abilities(abilities) => Ok(abilities),
            other => Err(Error::Lab(format!("the check answered {other:?}"))),
        }
    }

    /// Runs a scenario; calls `on_arm` with the name of each arm that has ended.
    ///
    /// # Errors
    /// If there is no outcome: the worker could not start, died, or exceeded its time
    /// limit.
    pub async fn run(&self, job: Job, on_arm: &mut dyn FnMut(&str)) -> Result<Outcome> {
        match self.ask(Work::Do(job), on_arm).await? {
            Report::Outcome(outcome) => Ok(*outcome),
            other => Err(Error::Lab(format!("the worker answered {other:?}"))),
        }
    }

    /// Plays an arm and starts a shell in its network, on this process's standard
    /// input, output and error; returns the shell's exit status. An `exercise` keeps
    /// the cause secret. `unconfined` allows a shell that acts as the machine's root
    /// if there is no user namespace to confine it.
    ///
    /// # Errors
    /// If the arm could not be played or no shell started.
    #[allow(clippy::too_many_arguments, reason = "each is one option of the command")]
    pub async fn shell(
        &self,
        scenario: &str,
        arm: &str,
        exercise: Option<ExerciseName>,
        set: BTreeMap<String, String>,
        style: Style,
        unconfined: bool,
    ) -> Result<u8> {
        let failed = |e| Error::kernel("faultlab", "dup", e);
        // The duplicates have no close-on-exec flag, so the worker inherits them.
        let streams = [
            nix::unistd::dup(io::stdin()).map_err(failed)?,
            nix::unistd::dup(io::stdout()).map_err(failed)?,
            nix::unistd::dup(io::stderr()).map_err(failed)?,
        ];
        let terminal = Terminal::of(&streams[0]);
        let job = Job::Shell {
            scenario: scenario.to_owned(),
            arm: arm.to_owned(),
            set,
            options: ShellOptions { foreground: terminal.is_ours(), style, exercise, piped: false },
        };
        let descriptors = streams.each_ref().map(AsRawFd::as_raw_fd);
        match self.ask(Work::Sit { job, descriptors, unconfined }, &mut |_| {}).await? {
            Report::Left(status) => Ok(status),
            other => Err(Error::Lab(format!("the worker answered {other:?}"))),
        }
    }

    /// Runs a command in new namespaces of this machine, whose file systems are
    /// read-only there; passes its output to `on_output` as it arrives. The program,
    /// the file for its standard input and the paths in `keep` stay where they are,
    /// even below /tmp, which is empty otherwise.
    ///
    /// # Errors
    /// If commands cannot be confined here, or the worker fails.
    pub async fn exec(
        &self,
        mut order: ExecOrder,
        mut keep: Vec<PathBuf>,
        on_output: &mut OnOutput<'_>,
    ) -> Result<ExecRun> {
        keep.push(order.program.clone());
        keep.extend(order.stdin.clone());
        let directories: Vec<_> = keep.iter().filter_map(|path| Some(path.parent()?.to_owned())).collect();
        order.complete_path(&directories, None);
        let failed = |e| Error::kernel("faultlab", "make a pipe", e);
        let mut answers = ExecAnswers::new(&order);
        let (mut from, to) = port()?;
        // The duplicate has no close-on-exec flag, so the worker inherits it.
        let descriptor = nix::unistd::dup(&to).map_err(failed)?;
        drop(to);
        let mut child = self.start(Work::Exec { order, keep, descriptor: descriptor.as_raw_fd() }).await?;
        drop(descriptor);
        let read = async {
            let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 64 << 10]);
            loop {
                let length = from.read(&mut buffer).await.map_err(|e| Error::kernel("worker", "read", e))?;
                if length == 0 {
                    return Ok(());
                }
                for frame in decoder.push(&buffer[..length]) {
                    if let ExecAnswer::Output(stream, bytes) = answers.take(&frame)? {
                        on_output(stream, bytes)?;
                    }
                }
            }
        };
        let state = WorkerState::default();
        let mut on_arm = |_: &str| {};
        let ((), report) = tokio::try_join!(read, follow(&mut child, &mut on_arm, &state))?;
        match (report, answers.end) {
            (Report::Left(_), Some(end)) => Ok(ExecRun { end, files: answers.files }),
            (other, _) => Err(Error::Lab(format!("the worker answered {other:?}"))),
        }
    }

    async fn ask(&self, work: Work, on_arm: &mut dyn FnMut(&str)) -> Result<Report> {
        let lasts = matches!(work, Work::Sit { .. });
        let mut child = self.start(work).await?;
        if lasts {
            return follow(&mut child, on_arm, &WorkerState::default()).await;
        }
        let process = child.id();
        let state = WorkerState::default();
        let mut followed = pin!(follow(&mut child, on_arm, &state));
        let mut begun = Instant::now();
        loop {
            let budget = state.may_take.get() + SLACK;
            if let Ok(result) = timeout(budget.saturating_sub(begun.elapsed()), &mut followed).await {
                return result;
            }
            // A worker that was stopped gets a new deadline when it continues.
            if state.continued.take() || process.is_some_and(is_stopped) {
                begun = Instant::now();
            } else if begun.elapsed() >= state.may_take.get() + SLACK {
                // Returning drops the worker, which kills it. A play has its own time
                // limits; that none of them ended it means that a system call blocks.
                return Err(Error::Deadline {
                    place: "worker".into(),
                    condition: "its outcome; it does not even give up, so a system call of its own blocks"
                        .into(),
                    waited: budget,
                });
            }
        }
    }

    /// Starts a worker.
    async fn start(&self, work: Work) -> Result<Child> {
        let failed = |tried: &str, e: std::io::Error| Error::kernel("worker", tried, e);
        let mut child = Command::new(&self.executable)
            .args([WORD, &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal signals the whole process group, but the worker
            // must be ended by its starter.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(&format!("start {}", self.executable.display()), e))?;
        let request = serde_json::to_vec(&Request { privilege: self.privilege, work }).expect("plain data");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // This fails if the worker has died; its standard error has the reason.
        let _ = stdin.write_all(&request).await;
        Ok(child)
    }
}

/// Whether a worker is stopped (SIGSTOP): the process with this id, or a child of it.
fn is_stopped(process: u32) -> bool {
    let read =
        |process: &str, file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let stopped = |process: &str| {
        let stat = read(process, "stat");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    let process = process.to_string();
    let children = read(&process, &format!("task/{process}/children"));
    [process.as_str()].into_iter().chain(children.split_whitespace()).any(stopped)
}

/// What a worker has reported during its job.
#[derive(Debug, Default)]
struct WorkerState {
    /// Whether it was stopped and continued.
    continued: Cell<bool>,
    /// How long its job may take.
    may_take: Cell<Duration>,
}

/// Reads a worker's reports until it ends.
async fn follow(child: &mut Child, on_arm: &mut dyn FnMut(&str), state: &WorkerState) -> Result<Report> {
    let mut reports = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let listen = Complaints::read(BufReader::new(child.stderr.take().expect("stderr is piped")));
    let read = async {
        let mut end = None;
        while let Ok(Some(line)) = reports.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Report::ArmEnded(arm)) => on_arm(&arm),
                Ok(Report::ShellBegins) => {}
                Ok(Report::Continued) => state.continued.set(true),
                Ok(Report::MayTake(time)) => state.may_take.set(time),
                Ok(report) => end = Some(report),
                Err(error) => end = Some(Report::Failed(format!("the worker said {line:?}: {error}").into())),
            }
        }
        end
    };
    let (end, complaints) = tokio::join!(read, listen);
    let status = child.wait().await.map_err(|e| Error::kernel("worker", "wait", e))?;
    match end {
        Some(Report::Missing { what, advice }) => Err(Error::missing(what, advice)),
        Some(Report::Exhausted(sentence)) => Err(Error::Exhausted(sentence.into())),
        Some(Report::Failed(sentence)) => Err(Error::Lab(sentence.into())),
        Some(report) => Ok(report),
        None => Err(died(status, complaints)),
    }
}

fn died(status: ExitStatus, complaints: Complaints) -> Error {
    Error::Lab(format!("the worker ended without an outcome ({status}) {}", complaints.said()))
}
