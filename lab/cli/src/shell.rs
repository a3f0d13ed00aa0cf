//! `faultlab shell`: a shell beside a network in which the fault has happened.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;

use super::{Stop, run, run_here, selection};
use faultlab_base::error::Error;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_kernels::Store;
use faultlab_machine::exercise;
use faultlab_machine::here::{Checked, Here};
use faultlab_machine::job::Job;
use faultlab_machine::shell::ShellOptions;
use faultlab_machine::vm::Vm;
use faultlab_model::scenario::{Clock, Environment, Need, Recheck};
use faultlab_net::kernel::Kernel;
use faultlab_report::Style;

/// What can be typed.
#[derive(Debug, Args)]
pub struct Shell {
    /// The scenario
    scenario: String,
    /// The arm to play
    #[arg(long, value_name = "NAME", default_value = "fault")]
    arm: String,
    /// Change a setting of the scenario; `faultlab show` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep the cause secret: in the shell `hint` tells a little more each time, `check` plays the
    /// probes again on the network as you left it, or looks again at what hangs, and `solution` tells
    /// the story
    #[arg(long, conflicts_with = "arm")]
    exercise: bool,
    /// Have the network and the shell in a virtual machine of this kernel, an id of `faultlab kernel
    /// list` or a bzImage, with this machine's static busybox, bash, ip, ss, tc, nft, conntrack and tcpdump.
    /// It follows the wall's clock, not virtual time, in which days would pass while you think; Ctrl-] ends
    /// a machine that hangs
    #[arg(long, value_name = "ID|FILE")]
    kernel: Option<String>,
    /// Accept a shell that acts as root of this machine and can change it, where no user namespace can be
    /// made to confine it. Everywhere else this changes nothing
    #[arg(long, conflicts_with = "kernel")]
    unconfined: bool,
}

pub(super) fn shell(catalogue: &Catalogue, raw: &Shell, style: Style) -> Result<ExitCode, Stop> {
    let scenario = catalogue.find(&raw.scenario).map_err(Stop::Usage)?;
    selection::known_arm(&[scenario], &raw.arm).map_err(Stop::Usage)?;
    let set = selection::settings(&[scenario], &raw.set).map_err(Stop::Usage)?;
    let otherwise = "a shell has no virtual time: shorten that";
    selection::is_short(scenario, &[], &set, otherwise).map_err(Stop::Usage)?;
    let env = Environment::new(scenario, Kernel::running(), Clock::Real, &set);
    if raw.exercise && scenario.recheck == Recheck::Never {
        let able = catalogue.scenarios.iter().filter(|s| s.recheck != Recheck::Never);
        return Err(Stop::Usage(format!(
            "{} is no exercise: nothing ends the fault once it is there; there are {}",
            scenario.card.name,
            able.map(|s| s.card.name).collect::<Vec<_>>().join(", ")
        )));
    }
    if let Some(kernel) = &raw.kernel {
        return in_guest(scenario, raw, kernel, set, style);
    }
    super::on_runtime(async {
        tokio::select! {
            stop = run::stopped() => Err(stop),
            done = beside(scenario, raw, &env, set, style) => done,
        }
    })
}

async fn beside(
    scenario: &'static Scenario,
    raw: &Shell,
    env: &Environment,
    set: BTreeMap<String, String>,
    style: Style,
) -> Result<ExitCode, Stop> {
    let (name, arm, exercise) = (scenario.card.name, &raw.arm, raw.exercise);
    let cannot = |why: String| Err(Stop::Lab(Error::Lab(format!("{name}: {why}"))));
    if scenario.needs.contains(&Need::ExclusiveKernel) {
        return cannot("it needs a kernel of its own, which --kernel gives it".into());
    }
    if exercise {
        exercise::has_something(scenario, env)?;
    }
    if !scenario.arms_on(env, &[]).iter().any(|a| a.name == arm) {
        return cannot(selection::means_nothing(arm));
    }
    let Checked { here, abilities } = Here::find(&super::executable()?).await?;
    if let Some(reason) = run_here::missing(&abilities, scenario.needs) {
        return cannot(reason);
    }
    Ok(ExitCode::from(here.shell(name, arm, exercise, set, style, raw.unconfined).await?))
}

/// Runs a shell in a guest of that kernel.
fn in_guest(
    scenario: &Scenario,
    raw: &Shell,
    kernel: &str,
    set: BTreeMap<String, String>,
    style: Style,
) -> Result<ExitCode, Stop> {
    let job = Job::Shell {
        scenario: scenario.card.name.to_owned(),
        arm: raw.arm.clone(),
        set,
        options: ShellOptions { foreground: true, style, exercise: raw.exercise },
    };
    let vm = Vm::new(Store::find(kernel)?, Clock::Real, 1)?;
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        terminal::complain(&format!(
            "Booting {}, and playing the arm there. Ctrl-C ends the machine, and Ctrl-] from the prompt on.",
            text::line(kernel)
        ));
    }
    super::on_runtime(async {
        tokio::select! {
            stop = run::stopped() => Err(stop),
            status = vm.shell(job) => Ok(ExitCode::from(status?)),
        }
    })
}
