//! The command line: one file per verb.

mod commands;
mod doctor;
mod exec;
mod files;
mod find;
#[cfg(test)]
mod hostile;
mod interruption;
mod kernel;
mod ladders;
mod list;
mod merge;
mod options;
mod pcap;
mod pick;
mod remedies;
mod report;
mod run;
mod run_here;
mod run_vm;
mod selection;
mod shard;
mod shell;
mod show;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use nix::sys::signal::Signal;

use faultlab_base::error::Error;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_machine::commands::ShellCommand;
use faultlab_machine::{guest, worker};
use faultlab_report::Style;

/// Reproduces famous Linux network faults on a real kernel, and proves what
/// cures them.
#[derive(Debug, Parser)]
#[command(name = "faultlab", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
Begin with `faultlab run`, then `faultlab show tw-recycle-nat`; with an error message,
`faultlab find 'MESSAGE'`.

Everything happens in namespaces that end with the command: faultlab does not change
the machine it runs on, and needs no root where user namespaces are allowed.

Exit status:
  0    every outcome is as expected
  1    an outcome differs; with FAULTLAB_REQUIRE_ALL=1 also if one is not applicable;
       `find`: no fault matches
  2    the command line is wrong
  69   the lab could not run here, or `merge` misses a shard
  74   the results could not be written
  125  `run --bisect` cannot tell; it exits with 0 for good and 1 for bad
  129, 130, 143  ended by SIGHUP, Ctrl-C, SIGTERM
  141  the reader of the results has gone
`shell` exits as its shell does, `exec` as its command.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Name the scenarios, what each needs and where it reproduces
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// What somebody types who wants `find`
        #[arg(hide = true)]
        words: Vec<String>,
    },
    /// Find out which known fault an error message, a symptom or a log is about
    Find(find::Find),
    /// Tell the story of a scenario: symptom, network, cause, arms, eras
    Show {
        /// The scenario's name, as `faultlab list` prints it
        scenario: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print which remedies help and which do not, kernel by kernel, from the reviewed outcomes
    Remedies {
        /// The scenario's name; without one, every scenario
        scenario: Option<String>,
        /// Print one JSON object per scenario and range of kernels
        #[arg(long)]
        json: bool,
    },
    /// Run scenarios and compare them with their reviewed outcomes
    Run(options::Run),
    /// Play one arm and start a shell beside its network, on the running kernel or another, also as an
    /// exercise; exits as the shell does
    Shell(shell::Shell),
    /// Run any command on any kernel, in virtual time: a bug report's script, a test, a server with its
    /// client; exits as the command does
    Exec(exec::Exec),
    /// Add to, list or clean the store of kernel images
    #[command(subcommand)]
    Kernel(kernel::Kernel),
    /// Put the JSON results of several runs back into one matrix
    Merge(merge::Merge),
    /// Find out what this machine can do, what is missing and how to get it
    Doctor {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script: faultlab completions bash > ...
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page: faultlab man | man -l -
    Man,
}

/// Why a verb ended early.
#[derive(Debug)]
enum Stop {
    /// The command line is wrong: status 2.
    Usage(String),
    /// The lab could not run: status 69 (EX_UNAVAILABLE of sysexits.h).
    Lab(Error),
    /// With `--bisect`, it cannot be determined whether the kernel is bad: status 125.
    CannotTell(String),
    /// Standard output or a file could not be written: status 74 (EX_IOERR of
    /// sysexits.h).
    Output(io::Error),
    /// A signal: status 128 plus its number.
    Interrupted(Signal),
}

impl Stop {
    /// Turns an error into [`Self::CannotTell`], because `git bisect run` treats every status
    /// from 1 to 127 except 125 as a bad kernel.
    fn for_bisect(self) -> Self {
        match self {
            Self::Usage(sentence) => Self::CannotTell(sentence),
            Self::Lab(error) => Self::CannotTell(error.to_string()),
            Self::Output(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Self::CannotTell(unwritten(&error))
            }
            ended => ended,
        }
    }
}

fn unwritten(error: &io::Error) -> String {
    format!("cannot write the results: {error}")
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Lab(error)
    }
}

/// The program: runs the command line, or the worker or guest as which it was started, and
/// returns the exit status.
#[must_use]
pub fn main(catalogue: &Catalogue) -> ExitCode {
    if guest::asked() {
        return guest::main(catalogue);
    }
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Some(parent) = worker::asked(&arguments) {
        return worker::main(catalogue, parent);
    }
    terminal::install_panic_hook();
    let done = if arguments.first().is_some_and(|program| ShellCommand::asked(program).is_some()) {
        commands::run(style())
    } else {
        match Arguments::try_parse() {
            Ok(arguments) => obey(catalogue, arguments.verb),
            Err(error) => return told_to_type(&error, &arguments),
        }
    };
    let (status, sentence) = match done {
        Ok(status) => return status,
        Err(Stop::Usage(sentence)) => (2, sentence),
        Err(Stop::Lab(error)) => (69, error.to_string()),
        // `faultlab run | head` ends quietly, as if by SIGPIPE.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::from(128 + Signal::SIGPIPE as u8);
        }
        Err(Stop::CannotTell(sentence)) => (125, sentence),
        Err(Stop::Output(error)) => (74, unwritten(&error)),
        Err(Stop::Interrupted(signal)) => return ExitCode::from(128 + signal as u8),
    };
    terminal::say(&sentence);
    ExitCode::from(status)
}

/// Prints clap's error about the arguments or the requested help, and returns the exit
/// status.
fn told_to_type(error: &clap::Error, arguments: &[String]) -> ExitCode {
    // clap quotes the arguments in its message, so it gets cleaned ones.
    let clean: Vec<_> = arguments.iter().map(|argument| text::line(argument).into_owned()).collect();
    match Arguments::try_parse_from(&clean) {
        // If the message cannot be printed, the exit status still reports the
        // error.
        Err(cleaned) => drop(cleaned.print()),
        Ok(_) => terminal::say(&error.to_string()),
    }
    let bisecting = arguments.iter().any(|a| a == "--bisect" || a.starts_with("--bisect="));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        // `git bisect run` would otherwise mark the commit bad.
        _ if bisecting => ExitCode::from(125),
        _ => ExitCode::from(2),
    }
}

fn obey(catalogue: &Catalogue, verb: Verb) -> Result<ExitCode, Stop> {
    // Not for `shell`; `run` and `exec` check it themselves, because of --bisect and --json.
    if !matches!(verb, Verb::Shell(_) | Verb::Run(_) | Verb::Exec(_)) {
        terminal::is_open()?;
    }
    match verb {
        Verb::List { json, words } if words.is_empty() => {
            list::list(catalogue, json, style()).map(|()| ExitCode::SUCCESS)
        }
        Verb::List { words, .. } => Err(Stop::Usage(list::takes_no(&words))),
        Verb::Find(what) => find::find(catalogue, &what, style()),
        Verb::Show { scenario, json } => {
            show::show(catalogue, &scenario, json, style()).map(|()| ExitCode::SUCCESS)
        }
        Verb::Remedies { scenario, json } => {
            remedies::remedies(catalogue, scenario.as_deref(), json, style()).map(|()| ExitCode::SUCCESS)
        }
        Verb::Kernel(verb) => kernel::kernel(verb, style()).map(|()| ExitCode::SUCCESS),
        Verb::Merge(merge) => merge::merge(catalogue, &merge, style()),
        Verb::Run(raw) => run::run(catalogue, raw, style()),
        Verb::Exec(raw) => exec::exec(&raw, style()),
        Verb::Shell(raw) => shell::shell(catalogue, &raw, style()),
        Verb::Doctor { json } => doctor::doctor(json, style()),
        Verb::Completions { shell } => completions(shell).map(|()| ExitCode::SUCCESS).map_err(Stop::from),
        Verb::Man => manual().map(|()| ExitCode::SUCCESS).map_err(Stop::from),
    }
}

/// Runs the asynchronous part of a verb, on this thread.
fn on_runtime<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::kernel("faultlab", "start the runtime", e))?;
    runtime.block_on(work)
}

/// The program to start as a worker: this one.
fn executable() -> Result<PathBuf, Stop> {
    let found = std::env::current_exe();
    found.map_err(|e| Stop::Lab(Error::kernel("faultlab", "find its own executable by /proc/self/exe", e)))
}

fn manual() -> io::Result<()> {
    let mut page = vec![];
    clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
    terminal::print_bytes(&page)
}

fn completions(shell: Shell) -> io::Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Arguments::command(), "faultlab", &mut script);
    terminal::print_bytes(&script)
}

/// The page style: the width of the terminal, at least 60, or 100 without one; and whether to
/// use colour (NO_COLOR, TERM=dumb).
fn style() -> Style {
    let terminal = io::stdout().is_terminal();
    let width = match terminal_size::terminal_size() {
        Some((width, _)) if terminal => usize::from(width.0).max(60),
        _ => 100,
    };
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    Style { width, colour: terminal && !plain }
}
