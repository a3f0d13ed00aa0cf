//! The main function of a guest's init.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::outputs::Outputs;
use super::{console, housekeeping, line, modules, mounts, priority, tools};
use crate::exec::command;
use crate::job::{self, Job, Report, Site};
use crate::orders::Orders;
use crate::protocol::{COMPLETE, Frame, MODULE_LIST, MODULES, ORDERS, REPORT};
use crate::shell::{ShellOptions, Streams};
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::kernel_reports::Opened;
use faultlab_model::outcome::Machine;
use faultlab_model::scenario::Clock;
use faultlab_net::kernel::Kernel;
use faultlab_net::network::sysctl;

/// The error for an incomplete initramfs: a kernel with too little memory boots with
/// the part that it could unpack.
const PARTIAL: &str =
    "the guest has too little memory for its files: its kernel unpacked only a part of them";

/// Whether this process is the init of a guest.
#[must_use]
pub fn asked() -> bool {
    std::process::id() == 1 && Path::new(ORDERS).exists()
}

/// Runs as a guest's init until the guest is powered off.
#[must_use]
pub fn main(catalogue: &Catalogue) -> ExitCode {
    if let Err(error) = work(catalogue) {
        let _ = report(&error.into());
    }
    match housekeeping::power_off() {
        Ok(never) => match never {},
        // The kernel panics when init ends, and QEMU ends with it.
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(report: &Report) -> Result<()> {
    line::send(&Frame::new(REPORT, serde_json::to_vec(report).expect("reports are plain data")))
}

fn work(catalogue: &Catalogue) -> Result<()> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(|e| Error::kernel("init", format!("read {path}"), e));
    mounts::mount_file_systems()?;
    console::leave_console()?;
    if !Path::new(COMPLETE).exists() {
        return Err(Error::Exhausted(PARTIAL.to_owned()));
    }
    let text = read(ORDERS)?;
    // A user of the shell must not read them: they name a secret exercise.
    fs::remove_file(ORDERS).map_err(|e| Error::kernel("init", format!("remove {ORDERS}"), e))?;
    let orders: Orders =
        serde_json::from_str(&text).map_err(|e| Error::Lab(format!("init: the orders: {e}")))?;
    let brings = orders.exec.is_some() || orders.jobs.iter().any(|job| matches!(job, Job::Shell { .. }));
    if brings {
        mounts::complete_dev()?;
    } else {
        mounts::mount_tmp()?;
    }
    housekeeping::seed_randomness(orders.seed)?;
    let modules = read(MODULE_LIST)?;
    modules::load_modules(modules.lines().map(|name| Path::new(MODULES).join(name)))?;
    housekeeping::quiet()?;
    housekeeping::raise_open_files()?;
    if let Some(order) = orders.exec {
        tools::install()?;
        command::prepare()?;
        report(&Report::Booted { release: Kernel::running().release.into() })?;
        return command::run(&order, &priority::go_last, &mut |frame| line::send(frame));
    }
    housekeeping::small_conntrack_table()?;
    priority::go_first()?;
    // No other program uses this kernel, so global settings may be changed too.
    sysctl::own_the_kernel();
    report(&Report::Booted { release: Kernel::running().release.into() })?;

    let reports = Opened::open(orders.jobs.iter().any(Job::asks_why)).listen();
    let runtime = job::runtime("init")?;
    let guest = Guest { clock: orders.clock };
    for job in orders.jobs {
        job.perform(catalogue, &reports, &guest, &runtime)?;
        if matches!(job, Job::Run { .. }) {
            settle();
        }
    }
    Ok(())
}

/// Waits 1 s, in which the kernel frees the network namespaces of a scenario before
/// the next one begins.
fn settle() {
    std::thread::sleep(Duration::from_secs(1));
}

/// The guest, as the place where jobs are performed.
struct Guest {
    clock: Clock,
}

impl Site for Guest {
    fn machine(&self) -> Machine {
        Machine::Vm
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn report(&self, what: &Report) -> Result<()> {
        report(what)
    }

    fn screen(&self) -> Result<Option<OwnedFd>> {
        // Nobody is attached to the console yet; the host shows the progress.
        Ok(None)
    }

    fn streams(&self, options: &ShellOptions) -> Result<Streams> {
        tools::install()?;
        let terminal = console::take_console(options.style.width)?;
        if !options.piped {
            return Streams::of(terminal);
        }
        console::read_plainly(&terminal)?;
        let (outputs, ends) = Outputs::new()?;
        Ok(Streams::piped(terminal, ends, outputs))
    }

    fn confines(&self) -> bool {
        false
    }

    fn shell_left(&self) -> Result<()> {
        console::silence_console()
    }
}
