//! `faultlab run`: scenarios on the running kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use futures_util::stream::{self, StreamExt};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::Stop;
use super::options::{self, Options};
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::machine::check::Ability;
use crate::machine::here::{Checked, Here};
use crate::machine::worker::Task;
use crate::outcome::{Map, Outcome, Seconds, Verdict};
use crate::report::progress::{Display, Progress};
use crate::report::{Style, table};
use crate::scenario::{Clock, Ground, Need, Scenario};

/// Runs what was asked for, unless a signal comes first.
pub(super) fn run(
    catalogue: &Catalogue,
    raw: options::Run,
    style: Style,
) -> std::result::Result<ExitCode, Stop> {
    let options = raw.options(catalogue).map_err(Stop::Usage)?;
    super::on_runtime(async {
        tokio::select! {
            // Dropping the run kills its workers, and with them all they made.
            stop = stopped() => Err(stop),
            done = run_all(&options, style) => done,
        }
    })
}

async fn stopped() -> Stop {
    let wait = |kind: SignalKind, name: Signal| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
                name
            }
            Err(_) => std::future::pending().await,
        }
    };
    let signal = tokio::select! {
        name = wait(SignalKind::interrupt(), Signal::SIGINT) => name,
        name = wait(SignalKind::terminate(), Signal::SIGTERM) => name,
        name = wait(SignalKind::hangup(), Signal::SIGHUP) => name,
    };
    Stop::Interrupted(signal)
}

async fn run_all(options: &Options, style: Style) -> std::result::Result<ExitCode, Stop> {
    let display = RefCell::new(Display::new(io::stderr().is_terminal()));
    display.borrow_mut().note(&Progress::Checking);
    let checked = Here::find(&super::executable()?).await;
    display.borrow_mut().note(&Progress::CheckingEnded);
    let Checked { here, abilities } = checked?;
    if let Some(reason) =
        abilities.iter().find(|a| a.need == Need::Veth.to_string()).and_then(|a| a.missing.clone())
    {
        return Err(Stop::Lab(Error::Lab(format!("nothing can run here: {reason}"))));
    }
    let kernel = Kernel::running();
    let runs = options.scenarios.iter().map(|s| one(s, options, &here, &abilities, &kernel, &display));
    let mut outcomes = stream::iter(runs).buffered(options.jobs);
    let mut tally = Tally::default();
    while let Some((scenario, outcome)) = outcomes.next().await {
        tally.add(&outcome);
        let text = if options.json {
            serde_json::to_string(&outcome).expect("outcomes are plain data") + "\n"
        } else {
            table::outcome(scenario, &outcome, style) + "\n"
        };
        let mut written = Ok(());
        display.borrow().print(|| {
            let mut out = io::stdout().lock();
            written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
        written?;
    }
    if !options.json {
        writeln!(io::stdout().lock(), "{}", tally.sentence(options.scenarios.len()))?;
    }
    let failed = tally.unexpected > 0 || (options.require_all && tally.not_applicable > 0);
    Ok(ExitCode::from(u8::from(failed)))
}

/// One scenario, from whether it can run here to its outcome.
async fn one(
    scenario: &'static Scenario,
    options: &Options,
    here: &Here,
    abilities: &[Ability],
    kernel: &Kernel,
    display: &RefCell<Display>,
) -> (&'static Scenario, Outcome) {
    let name = scenario.card.name;
    let ground = Ground::new(scenario, kernel.clone(), Clock::Real, &options.set);
    if let Some(reason) = lacking(scenario, abilities) {
        return (scenario, without_run(scenario, &ground, Verdict::NotApplicable, reason));
    }
    let arms = scenario.arms_on(&ground, &options.only).len();
    display.borrow_mut().note(&Progress::Begun { scenario: name, arms });
    let known = |key: &String| scenario.settings.iter().any(|s| s.key == key);
    let set: BTreeMap<_, _> =
        options.set.iter().filter(|(k, _)| known(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let task = Task::Run { scenario: name.to_owned(), only: options.only.clone(), set, without_cause: false };
    let mut on_arm = |arm: &str| display.borrow_mut().note(&Progress::Arm { scenario: name, arm });
    let result: Result<Outcome> = here.run(task, &mut on_arm).await;
    display.borrow_mut().note(&Progress::Ended(name));
    let outcome = result.unwrap_or_else(|error| match error {
        Error::Missing(missing) => {
            without_run(scenario, &ground, Verdict::NotApplicable, missing.to_string())
        }
        error => without_run(scenario, &ground, Verdict::Failed, error.to_string()),
    });
    (scenario, outcome)
}

/// What a scenario needs and this machine does not have.
fn lacking(scenario: &Scenario, abilities: &[Ability]) -> Option<String> {
    if scenario.needs.contains(&Need::OwnKernel) {
        return Some("it needs a kernel of its own; run it with --kernel".into());
    }
    let needed = |a: &&Ability| !a.optional && scenario.needs.iter().any(|n| n.to_string() == a.need);
    abilities.iter().filter(needed).find_map(|a| a.missing.clone())
}

fn without_run(scenario: &Scenario, ground: &Ground, verdict: Verdict, reason: String) -> Outcome {
    Outcome {
        scenario: scenario.card.name.to_owned(),
        kernel: ground.kernel.release.clone(),
        machine: "here".to_owned(),
        clock: Clock::Real,
        era: scenario.era(ground).map(|e| e.name.to_owned()),
        verdict,
        expected: verdict == Verdict::NotApplicable,
        reason: Some(reason),
        settings: Map::default(),
        symptom: scenario.symptom.row.to_owned(),
        arms: vec![],
        seconds: Seconds { wall: 0.0, virtual_time: None },
    }
}

#[derive(Debug, Default)]
struct Tally {
    reproduced: usize,
    immune: usize,
    not_applicable: usize,
    failed: usize,
    unexpected: usize,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome.verdict {
            Verdict::Reproduced => self.reproduced += 1,
            Verdict::Immune => self.immune += 1,
            Verdict::NotApplicable => self.not_applicable += 1,
            Verdict::Failed => self.failed += 1,
        }
        self.unexpected += usize::from(!outcome.expected);
    }

    fn sentence(&self, all: usize) -> String {
        let mut parts = vec![];
        for (count, what) in [
            (self.reproduced, "reproduced"),
            (self.immune, "immune"),
            (self.not_applicable, "not applicable here"),
            (self.failed, "failed"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let scenarios = if all == 1 { "scenario" } else { "scenarios" };
        let expected = match self.unexpected {
            0 => "all as expected".to_owned(),
            n => format!("{n} NOT as expected"),
        };
        format!("{all} {scenarios}: {}; {expected}", parts.join(", "))
    }
}
