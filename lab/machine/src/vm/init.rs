//! The life of a guest's init: this program again, as the first process of a
//! kernel that nothing else runs on.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::frame::Frame;
use super::{housekeeping, initramfs, line, priority, tools};
use crate::exercise;
use crate::shell::{self, Played, Seat, Streams};
use crate::worker::{Report, Task};
use faultlab_base::error::{Error, Missing, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::evidence::voice::{Opened, Voice};
use faultlab_engine::perform::{Order, perform};
use faultlab_engine::scenario::Scenario;
use faultlab_model::outcome::{Outcome, Verdict};
use faultlab_model::scenario::{Clock, Ground};
use faultlab_net::kernel::Kernel;
use faultlab_net::network::sysctl;

/// Where the initramfs has the orders.
pub const ORDERS: &str = "/orders.json";
/// The kind of a frame whose body is a [`Report`] in JSON.
pub const REPORT: u8 = 1;

/// What a guest is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// What it does, one after the other.
    pub tasks: Vec<Task>,
    /// Which clock its timers follow.
    pub clock: Clock,
    /// Where its randomness begins.
    pub seed: u64,
}

/// Whether this process is the init of a guest.
#[must_use]
pub fn asked() -> bool {
    std::process::id() == 1 && Path::new(ORDERS).exists()
}

/// The life of a guest's init. It ends with the machine's.
#[must_use]
pub fn main(catalogue: &Catalogue) -> ExitCode {
    if let Err(error) = work(catalogue) {
        let last = match error {
            Error::Missing(Missing { what, way_out }) => Report::Missing { what, way_out },
            error => Report::Failed(error.to_string()),
        };
        let _ = report(&last);
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
    housekeeping::mount_file_systems()?;
    housekeeping::leave_console()?;
    let text = read(ORDERS)?;
    let orders: Orders =
        serde_json::from_str(&text).map_err(|e| Error::Lab(format!("init: the orders: {e}")))?;
    housekeeping::seed_randomness(orders.seed)?;
    let modules = read(initramfs::MODULE_LIST)?;
    housekeeping::load_modules(modules.lines().map(|name| Path::new(initramfs::MODULES).join(name)))?;
    housekeeping::quiet()?;
    priority::go_first()?;
    // Nothing else runs on this kernel: its own settings are the lab's.
    sysctl::own_the_kernel();
    report(&Report::Booted { release: Kernel::running().release })?;

    let voice = Opened::open(orders.tasks.iter().any(Task::asks_why)).listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::kernel("init", "start the runtime", e))?;
    for task in orders.tasks {
        let (scenario, only, set, without_cause, looks) = match task {
            Task::Run { scenario, only, set, without_cause, looks } => {
                (scenario, only, set, without_cause, looks)
            }
            Task::Shell { scenario, arm, set, seat, .. } => {
                let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
                let ground = Ground::new(scenario, Kernel::running(), orders.clock, &set);
                let sitting = sit(scenario, &ground, &arm, seat, &voice);
                report(&Report::Left(LocalSet::new().block_on(&runtime, sitting)?))?;
                continue;
            }
            Task::Check => return Err(Error::Lab("init: a guest is not checked, it runs".into())),
        };
        let scenario = catalogue.find(&scenario).map_err(Error::Lab)?;
        let ground = Ground::new(scenario, Kernel::running(), orders.clock, &set);
        let order = Order { only: &only, without_cause, looks };
        let on_arm = |arm: &str| {
            let _ = report(&Report::Arm(arm.to_owned()));
        };
        let play = perform(scenario, &ground, order, &voice, catalogue.snapshots, &on_arm);
        // Of a guest's own memory the next scenario may have enough.
        let mut outcome = LocalSet::new().block_on(&runtime, play).unwrap_or_else(|error| {
            Outcome::without_run(scenario, &ground, Verdict::Failed, error.to_string())
        });
        "vm".clone_into(&mut outcome.machine);
        outcome.seconds.virtual_time = (orders.clock == Clock::Virtual).then_some(outcome.seconds.wall);
        report(&Report::Outcome(Box::new(outcome)))?;
        settle();
    }
    Ok(())
}

/// Plays an arm, and has a shell on the console beside its network.
async fn sit(scenario: &Scenario, ground: &Ground, arm: &str, seat: Seat, voice: &Voice) -> Result<u8> {
    let meant = scenario.scripted_on(ground, &[]);
    let arm = meant.iter().find(|scripted| scripted.arm.name == arm).ok_or_else(|| {
        Error::Lab(format!("the arm {arm} means nothing on this kernel with these settings"))
    })?;
    if seat.exercise {
        exercise::has_something(scenario, ground)?;
    }
    let run = Played::run(scenario, ground, arm, voice).await?;
    let played = Played::on(scenario, &run).await?;
    tools::install()?;
    let console = housekeeping::take_console(seat.style.width)?;
    report(&Report::Arm(arm.arm.name.to_owned()))?;
    let left = shell::beside(played, Streams::of(console)?, seat, false).await;
    housekeeping::silence_console()?;
    left
}

/// Lets the kernel free the networks of a scenario before the next begins.
fn settle() {
    std::thread::sleep(Duration::from_secs(1));
}
