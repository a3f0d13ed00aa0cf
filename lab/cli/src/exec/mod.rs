//! `faultlab exec`: any command, on any kernel.
//!
//! - `command`: resolves the command line;
//! - `duration`: time limits;
//! - `relay`: passes the output on, and finds commands that are missing;
//! - `out`: the files in `$OUT`;
//! - `ran`: the result of a run, its exit status and its messages;
//! - `compare`: the differences between kernels.

mod command;
mod compare;
mod duration;
mod out;
mod ran;
mod relay;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::files::{self, Folder};
use super::{Stop, run};
use faultlab_base::error::Error;
use faultlab_base::{terminal, text};
use faultlab_kernels::{KernelImage, Store};
use faultlab_machine::exec::{ExecOrder, ExecRun, OnOutput};
use faultlab_machine::here::{Checked, Here};
use faultlab_machine::vm::exec::{ExecFailure, ExecMachine};
use faultlab_machine::vm::{Vm, named};
use faultlab_model::scenario::Clock;
use faultlab_net::kernel::Kernel;
use faultlab_report::Style;
use ran::{End, Ran};
use relay::Relay;

/// What can be typed.
#[derive(Debug, Args)]
#[command(after_help = "\
The command runs as root in a virtual machine of that kernel, whose clock jumps to the
next timer when every process sleeps: `sleep 86400` takes seconds. With the same
programs of this machine, the same command, kernel and --seed give the same output,
byte for byte, on one processor and without --real-time.

  faultlab exec --kernel debian:trixie -- sleep 86400
  faultlab exec --kernel debian:bullseye --kernel debian:trixie -- ./reproduce.sh eth0
  faultlab exec --kernel debian:trixie --with nginx --with ./conf --out results -- ./soak.sh

It is copied from this machine into the guest, with its shared objects or, for a script,
its interpreter. So are a shell, coreutils, ip, nft, tc, ss, conntrack and similar tools,
busybox's applets (a static busybox is required), and the kernel's network modules, which
load on demand. Bring anything else that a script starts or reads with --with; it keeps
its path. There is nothing else of this machine, no network but lo, and no terminal.
The environment is fixed (--env adds to it).

Without --kernel it runs on the running kernel, in namespaces of its own, to try a script
here first. This machine's files are there, read-only. /tmp, /var/tmp and /dev/shm are
empty but for what was named; /run has the machine's files, without its sockets and the
users' directories. Time is the wall clock's.

The command ends with all processes that it started. What it leaves in the directory
$OUT comes back with --out: directories and regular files, 64 MiB of them. It may print
64 MiB.

Exit status: the command's own, 128 plus the number of the signal that ended it, 126 if
it cannot be executed, 127 if it is not found, 124 if a limit was reached, 70 if its
kernel panicked, 69 if the lab could not run it, 2 if the command line is wrong. With
several kernels 0 if exit status, output and, with --out, files are the same on all of
them - even if that status is not 0 -, 1 if they differ, 69 if the lab could not run it
on one of them.")]
pub struct Exec {
    /// Run in a virtual machine of this kernel: an id of `faultlab kernel list`, or a bzImage; several run
    /// one after another, and are compared. Without it the command runs on the running kernel
    #[arg(long, value_name = "ID|FILE")]
    kernel: Vec<String>,
    /// Bring a program, a file or a directory of this machine along, at its own path; may be repeated
    #[arg(long, value_name = "PROGRAM|PATH")]
    with: Vec<PathBuf>,
    /// Write what the command leaves in $OUT into this directory; with several kernels, into a directory
    /// for each of them there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Let the command read this file; by default its standard input is empty
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Set an environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = command::variable)]
    env: Vec<(String, String)>,
    /// End the command after this time by the clock that it sees: 90, 15min, 1.5h, "2d 12h". In virtual
    /// even the default of 30 days passes in about a minute if the command only waits
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "30d")]
    virtual_timeout: Duration,
    /// End it after this time by the wall's clock, boot included
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Seed of the guest's randomness: another one gives other ports, sequence numbers and races
    #[arg(long, value_name = "N", default_value_t = 1, requires = "kernel")]
    seed: u64,
    /// How many processors it has. With several, two runs may differ by some microseconds, and kernels
    /// before 5.15 may hang in virtual time while they start the second one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8), requires = "kernel")]
    cpus: Option<u32>,
    /// Its memory; by default enough for what is brought along
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..=3072), requires = "kernel")]
    memory: Option<u32>,
    /// Let an instruction take 2^N ns of virtual time, by default 2^3. With less a program computes more
    /// in the same virtual time, and the machine takes longer to boot
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=10), requires = "kernel", conflicts_with = "real_time")]
    shift: Option<u8>,
    /// Follow the wall's clock, with KVM where that works: nothing is the same twice then
    #[arg(long, requires = "kernel")]
    real_time: bool,
    /// Print a line of JSON for each kernel, which contains the output
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(required = true, value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(super) fn exec(raw: &Exec, style: Style) -> Result<ExitCode, Stop> {
    if raw.json {
        terminal::is_open()?;
    }
    let order = match command::order(raw) {
        Ok(order) => order,
        Err(command::NotFound { status, sentence }) => {
            terminal::say(&sentence);
            return Ok(ExitCode::from(status));
        }
    };
    let mut places =
        raw.kernel.iter().map(|name| Store::find(name).map(Some)).collect::<Result<Vec<_>, _>>()?;
    if places.is_empty() {
        places.push(None);
    }
    let out = raw.out.as_deref().map(Folder::make).transpose()?;
    let ran = super::on_runtime(async {
        tokio::select! {
            // Polled first, to install the signal handlers: until then a signal kills this
            // process.
            biased;
            stop = run::stopped() => Err(stop),
            ran = on_all(raw, &order, places, out.as_ref()) => ran,
        }
    })?;
    if let [only] = ran.as_slice() {
        return Ok(ExitCode::from(only.status()));
    }
    let differences = compare::table(&ran, style);
    if !raw.json {
        terminal::complain(&differences.text);
    }
    let lab = ran.iter().find(|ran| matches!(ran.end, End::Lab(_)));
    Ok(lab.map_or(ExitCode::from(u8::from(differences.any)), |ran| ExitCode::from(ran.status())))
}

/// Runs the command on one kernel after another; `None` is the running kernel.
async fn on_all(
    raw: &Exec,
    order: &ExecOrder,
    kernels: Vec<Option<KernelImage>>,
    out: Option<&Folder>,
) -> Result<Vec<Ran>, Stop> {
    let several = kernels.len() > 1;
    let mut all: Vec<Ran> = vec![];
    for kernel in kernels {
        let (id, release) = match &kernel {
            Some(kernel) => (kernel.id.clone(), kernel.release.clone()),
            None => ("here".to_owned(), Kernel::running().release),
        };
        if several && !raw.json {
            terminal::complain(&format!("{}, Linux {}:", text::line(&id), text::line(&release)));
        }
        let place = match out {
            Some(out) if several => Some(out.below(OsString::from(files::name(&id)).as_os_str())?),
            Some(out) => Some(out.below(".".as_ref())?),
            None => None,
        };
        let kernel = Place { kernel, id, release };
        let ran = Box::pin(on(raw, order, kernel, several, place.as_ref())).await?;
        if raw.json {
            terminal::print(&(ran.json() + "\n"))?;
        }
        ran.explain(raw.json);
        all.push(ran);
    }
    Ok(all)
}

/// Where the command runs.
struct Place {
    /// `None` for the running kernel.
    kernel: Option<KernelImage>,
    id: String,
    release: String,
}

/// Runs the command on one kernel.
async fn on(
    raw: &Exec,
    order: &ExecOrder,
    Place { kernel, id, release }: Place,
    several: bool,
    out: Option<&Folder>,
) -> Result<Ran, Stop> {
    let begun = Instant::now();
    let is_virtual = kernel.is_some() && !raw.real_time;
    let in_guest = kernel.is_some();
    let mut relay = Relay::new(!raw.json, raw.json || several);
    let mut on_output = |stream, bytes: &[u8]| relay.take(stream, bytes);
    let work = async {
        match kernel {
            Some(kernel) => guest(raw, order, kernel, &mut on_output).await,
            None => here(raw, order, &mut on_output).await,
        }
    };
    let done = match raw.timeout {
        None => Some(work.await),
        Some(most) => timeout(most, work).await.ok(),
    };
    let written = relay.finish()?;
    let (end, files) = match done {
        None => (End::WallLimit(raw.timeout.unwrap_or_default()), vec![]),
        Some(Ok(ExecRun { end, files })) => (End::Ended(end), files),
        Some(Err(ExecFailure::Panicked(error))) => (End::Panicked(error), vec![]),
        Some(Err(ExecFailure::Lab(error @ Error::Missing(_)))) => return Err(error.into()),
        Some(Err(ExecFailure::Lab(error))) => (End::Lab(error), vec![]),
    };
    if let Some(folder) = out {
        out::write(folder, &files)?;
    }
    Ok(Ran {
        kernel: id,
        release,
        virtual_limit: raw.virtual_timeout,
        end,
        is_virtual,
        in_guest,
        stdout: written.stdout,
        stderr: written.stderr,
        not_found: written.not_found,
        files,
        wall: begun.elapsed(),
    })
}

async fn guest(
    raw: &Exec,
    order: &ExecOrder,
    kernel: KernelImage,
    on_output: &mut OnOutput<'_>,
) -> Result<ExecRun, ExecFailure> {
    let clock = if raw.real_time { Clock::Real } else { Clock::Virtual };
    let machine = ExecMachine { processors: raw.cpus, memory: raw.memory, shift: raw.shift };
    let (order, with, seed) = (order.clone(), raw.with.clone(), raw.seed);
    let (ready, prepared) = oneshot::channel();
    // On another thread, so that Ctrl-C is handled meanwhile. The thread is not joined: it
    // ends with the process.
    std::thread::spawn(move || {
        let prepared = Vm::new(kernel, clock, seed).and_then(|vm| vm.prepare_exec(order, &with, machine));
        drop(ready.send(prepared));
    });
    let prepared = prepared.await.map_err(|_| Error::Lab("the guest could not be prepared".to_owned()))?;
    prepared?.run(on_output).await
}

async fn here(raw: &Exec, order: &ExecOrder, on_output: &mut OnOutput<'_>) -> Result<ExecRun, ExecFailure> {
    let executable = std::env::current_exe()
        .map_err(|e| Error::kernel("faultlab", "find its own executable by /proc/self/exe", e))?;
    let Checked { here, .. } = Here::find(&executable).await?;
    let with = raw.with.iter().map(|what| named(what)).collect::<Result<_, Error>>()?;
    Ok(here.exec(order.clone(), with, on_output).await?)
}

/// Whether standard error is a terminal.
fn is_watched() -> bool {
    io::stderr().is_terminal()
}
