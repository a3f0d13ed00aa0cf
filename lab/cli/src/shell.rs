//! `faultlab shell`: a shell beside the network of a played arm.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::pick::{self, Place};
use super::{Stop, run, run_here, selection};
use faultlab_base::error::Error;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_kernels::{KernelImage, Store};
use faultlab_machine::exercise;
use faultlab_machine::exercise::ExerciseName;
use faultlab_machine::here::{Checked, Here};
use faultlab_machine::job::Job;
use faultlab_machine::shell::ShellOptions;
use faultlab_machine::vm::{ShellEvent, Vm};
use faultlab_model::scenario::{Clock, Environment, Need, Recheck};
use faultlab_net::kernel::Kernel;
use faultlab_report::Style;
use faultlab_report::progress::{Display, Progress};

/// What can be typed.
#[derive(Debug, Args)]
pub struct Shell {
    /// The scenario; without one, --exercise picks a secret one
    #[arg(required_unless_present = "exercise")]
    scenario: Option<String>,
    /// The arm to play
    #[arg(long, value_name = "NAME", default_value = "fault")]
    arm: String,
    /// Change a setting of the scenario; `faultlab show` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep the cause secret: in the shell `hint` tells a little more each time, `check` plays the
    /// probes again on the network as you left it, or looks again at what hangs, and `solution` tells
    /// the story. Without a scenario, pick one that can be solved here, and keep its name secret until it is
    /// solved or `solution` is entered
    #[arg(long, conflicts_with = "arm")]
    exercise: bool,
    /// Pick the secret exercise by this number, by default a random one: on the same machine and kernel the
    /// same number picks the same exercise again
    #[arg(long, value_name = "N", requires = "exercise", conflicts_with = "scenario")]
    seed: Option<u64>,
    /// Have the network and the shell in a virtual machine of this kernel, an id of `faultlab kernel
    /// list` or a bzImage, with the tools and modules that a command of `faultlab exec` has.
    /// It follows the wall's clock, not virtual time, in which days would pass while you think; Ctrl-] ends
    /// a machine that hangs
    #[arg(long, value_name = "ID|FILE")]
    kernel: Option<String>,
    /// Bring a program, a file or a directory of this machine along into the virtual machine, at its own
    /// path; may be repeated
    #[arg(long, value_name = "PROGRAM|PATH", requires = "kernel")]
    with: Vec<PathBuf>,
    /// Accept a shell that acts as root of this machine and can change it, where no user namespace can be
    /// made to confine it. Everywhere else this changes nothing
    #[arg(long, conflicts_with = "kernel")]
    unconfined: bool,
}

/// The scenario to play, its settings, and whether it is an exercise.
struct Chosen {
    scenario: &'static Scenario,
    set: BTreeMap<String, String>,
    exercise: Option<ExerciseName>,
}

impl Chosen {
    /// The scenario that the command line names; `None` if it names none.
    fn named(catalogue: &Catalogue, raw: &Shell) -> Result<Option<Self>, Stop> {
        let Some(name) = &raw.scenario else {
            return if raw.set.is_empty() {
                Ok(None)
            } else {
                Err(Stop::Usage("--set needs a scenario: a secret exercise has its own settings".to_owned()))
            };
        };
        let scenario = catalogue.find(name).map_err(Stop::Usage)?;
        selection::known_arm(&[scenario], &raw.arm).map_err(Stop::Usage)?;
        let set = selection::settings(&[scenario], &raw.set).map_err(Stop::Usage)?;
        let otherwise = "a shell has no virtual time: shorten that";
        selection::is_short(scenario, &[], &set, otherwise).map_err(Stop::Usage)?;
        if raw.exercise && scenario.recheck == Recheck::Never {
            let able = catalogue.scenarios.iter().filter(|s| s.recheck != Recheck::Never);
            return Err(Stop::Usage(format!(
                "{} is no exercise: nothing ends the fault once it is there; there are {}",
                scenario.card.name,
                able.map(|s| s.card.name).collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(Some(Self { scenario, set, exercise: raw.exercise.then_some(ExerciseName::Known) }))
    }

    /// A secret exercise, picked by `--seed` or at random.
    fn picked(catalogue: &Catalogue, raw: &Shell, kernel: &Kernel, place: Place<'_>) -> Result<Self, Stop> {
        let seed = raw.seed.unwrap_or_else(pick::any_seed);
        let scenario = pick::exercise(catalogue, kernel, place, seed)?;
        Ok(Self { scenario, set: BTreeMap::new(), exercise: Some(ExerciseName::Secret { seed }) })
    }
}

pub(super) fn shell(catalogue: &Catalogue, raw: &Shell, style: Style) -> Result<ExitCode, Stop> {
    let named = Chosen::named(catalogue, raw)?;
    if let Some(kernel) = &raw.kernel {
        let image = Store::find(kernel)?;
        let chosen = named.map_or_else(
            || {
                let mut kernel = Kernel::running();
                kernel.release.clone_from(&image.release);
                Chosen::picked(catalogue, raw, &kernel, Place::Guest)
            },
            Ok,
        )?;
        return in_guest(chosen, raw, image, style);
    }
    super::on_runtime(async {
        tokio::select! {
            stop = run::stopped() => Err(stop),
            done = beside(catalogue, named, raw, style) => done,
        }
    })
}

async fn beside(
    catalogue: &Catalogue,
    named: Option<Chosen>,
    raw: &Shell,
    style: Style,
) -> Result<ExitCode, Stop> {
    if let Some(chosen) = &named {
        can_be_here(chosen, raw)?;
    }
    let Checked { here, abilities } = Here::find(&super::executable()?).await?;
    let chosen = match named {
        Some(chosen) => chosen,
        None => Chosen::picked(catalogue, raw, &Kernel::running(), Place::Here(&abilities))?,
    };
    let Chosen { scenario, set, exercise } = chosen;
    let name = scenario.card.name;
    if let Some(reason) = run_here::missing(&abilities, scenario.needs) {
        return Err(cannot(scenario, &reason));
    }
    Ok(ExitCode::from(here.shell(name, &raw.arm, exercise, set, style, raw.unconfined).await?))
}

/// Checks that the scenario and the arm apply on the running kernel. The abilities of the
/// machine are checked later.
fn can_be_here(Chosen { scenario, set, exercise }: &Chosen, raw: &Shell) -> Result<(), Stop> {
    let env = Environment::new(scenario, Kernel::running(), Clock::Real, set);
    if scenario.needs.contains(&Need::ExclusiveKernel) {
        return Err(cannot(scenario, "it needs a kernel of its own, which --kernel gives it"));
    }
    if exercise.is_some() {
        exercise::check_not_immune(scenario, &env)?;
    }
    if scenario.arms_on(&env, &[]).iter().any(|arm| arm.name == raw.arm) {
        return Ok(());
    }
    Err(cannot(scenario, &selection::does_not_apply(&raw.arm)))
}

fn cannot(scenario: &Scenario, why: &str) -> Stop {
    Stop::Lab(Error::Lab(format!("{}: {why}", scenario.card.name)))
}

/// Reports on standard error the progress of a guest until its shell starts.
struct GuestProgress<'a> {
    kernel: &'a str,
    arm: &'a str,
    display: Display,
    /// The step that is displayed: the boot, or the arm.
    now: String,
}

impl<'a> GuestProgress<'a> {
    /// For a guest with this kernel that plays this arm.
    fn new(kernel: &'a str, arm: &'a str) -> Self {
        Self { kernel, arm, display: Display::new(io::stderr().is_terminal()), now: String::new() }
    }

    fn note(&mut self, event: ShellEvent) {
        self.end();
        match event {
            ShellEvent::Boots if !io::stderr().is_terminal() => {
                terminal::complain(&format!("Booting {}, and playing {} there.", self.kernel, self.arm));
            }
            ShellEvent::Boots => {
                if io::stdin().is_terminal() {
                    terminal::complain("Ctrl-C ends the machine, and Ctrl-] from the prompt on.");
                }
                self.begin(format!("Booting {}", self.kernel));
            }
            ShellEvent::Booted => self.begin(format!("Playing {}", self.arm)),
            ShellEvent::Begins => {}
        }
    }

    fn begin(&mut self, what: String) {
        self.display.note(&Progress::Waiting(&what));
        self.now = what;
    }

    fn end(&mut self) {
        self.display.note(&Progress::WaitingEnded(&self.now));
    }
}

impl Drop for GuestProgress<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs the shell in a guest with this kernel.
fn in_guest(chosen: Chosen, raw: &Shell, image: KernelImage, style: Style) -> Result<ExitCode, Stop> {
    let Chosen { scenario, set, exercise } = chosen;
    let options = ShellOptions { foreground: true, style, exercise, piped: !io::stdin().is_terminal() };
    let job = Job::Shell { scenario: scenario.card.name.to_owned(), arm: raw.arm.clone(), set, options };
    let (kernel, arm) = (text::line(&image.id).into_owned(), options.names(scenario.card.name, &raw.arm));
    let vm = Vm::new(image, Clock::Real, 1)?;
    let mut progress = GuestProgress::new(&kernel, &arm);
    let mut note = |event| progress.note(event);
    super::on_runtime(async {
        tokio::select! {
            stop = run::stopped() => Err(stop),
            status = vm.shell(job, &raw.with, &mut note) => Ok(ExitCode::from(status?)),
        }
    })
}
