//! Every scenario on kernels in guests, in virtual time, compared with its
//! reviewed outcome. Scenarios that need a kernel of their own also run without
//! their cause, and must then reproduce nothing. In all runs, a wire must
//! forward a frame at once unless its policy holds it.
//!
//! Runs on every kernel of the store (`faultlab kernel list`), or on those in
//! FAULTLAB_KERNELS, ids or bzImages, separated by spaces. The program is the
//! one in FAULTLAB_PROGRAM, by default that of the tests' build.

#[allow(dead_code, reason = "nobody types here")]
mod user;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, OnceLock};

use lab::outcome::Outcome;
use lab::scenario::{Clock, Need, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::CATALOGUE;

use faultlab_testkit::require_all;
use faultlab_testkit::reviewed::{is_reviewed, nothing_reproduced};

/// A kernel, and the results of all scenarios on it. The first test that needs
/// the results makes the run.
struct Kernel {
    id: String,
    /// The scenarios to run.
    wanted: Vec<&'static str>,
    options: &'static [&'static str],
    outcomes: OnceLock<Result<Vec<Outcome>, String>>,
}

/// The limit in seconds for a wire to forward a frame.
const PROMPT: f64 = 0.01;
/// Additional settings, each with the key that a scenario must have to be run
/// with them.
const SETTINGS: [(&str, &[&str]); 3] = [
    ("recycle", &["--set", "recycle=model"]),
    ("recycle", &["--set", "recycle=model-mainline-3.16"]),
    ("family", &["--set", "family=ipv6"]),
];

fn faultlab(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(user::program());
    let output = command.args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    match output.status.code() {
        // 1: an outcome differs, which its own test reports.
        Some(0 | 1) => String::from_utf8(output.stdout).map_err(|e| e.to_string()),
        status => Err(format!("status {status:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

impl Kernel {
    fn new(id: &str, scenarios: &[&'static Scenario], options: &'static [&'static str]) -> Arc<Self> {
        let wanted = scenarios.iter().map(|s| s.card.name).collect();
        Arc::new(Self { id: id.to_owned(), wanted, options, outcomes: OnceLock::new() })
    }

    fn outcome(&self, scenario: &Scenario) -> Result<Outcome, Failed> {
        let run = || {
            let mut line = vec!["run", "--kernel", &self.id, "--json"];
            line.extend(self.options);
            line.extend(&self.wanted);
            let lines = faultlab(&line)?;
            lines.lines().map(|line| serde_json::from_str(line).map_err(|e| e.to_string())).collect()
        };
        let outcomes = self.outcomes.get_or_init(run).as_ref().map_err(Clone::clone)?;
        let outcome = outcomes.iter().find(|o| o.scenario == scenario.card.name);
        Ok(outcome.cloned().ok_or("the run has no outcome of this scenario")?)
    }

    /// A wire must not look like a slow network. In virtual time, however busy
    /// the machine is, it forwards at once what its policy does not hold.
    fn wires_are_prompt(&self, scenario: &Scenario) -> Result<(), Failed> {
        let outcome = self.outcome(scenario)?;
        match outcome.seconds.wire.filter(|_| outcome.clock == Clock::Virtual) {
            Some(longest @ PROMPT..) => Err(format!("a wire had a frame for {longest} s").into()),
            _ => Ok(()),
        }
    }

    fn as_reviewed(&self, scenario: &Scenario) -> Result<(), Failed> {
        let outcome = self.outcome(scenario)?;
        is_reviewed(&outcome, scenario, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots"))
    }
}

fn kernels() -> Result<Vec<String>, String> {
    if let Ok(named) = std::env::var("FAULTLAB_KERNELS") {
        return Ok(named.split_whitespace().map(str::to_owned).collect());
    }
    let listed = faultlab(&["kernel", "list", "--json"])?;
    let id = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        entry["id"].as_str().map(str::to_owned).ok_or_else(|| format!("no id in {line}"))
    };
    listed.lines().map(id).collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let found = lab::machine::vm::Qemu::find().map_err(|e| e.to_string()).and_then(|_| kernels());
    let why = match &found {
        Err(why) => Some(why.clone()),
        Ok(kernels) if kernels.is_empty() => {
            Some("the store has no kernel; `faultlab kernel add debian:bookworm` fetches one".to_owned())
        }
        Ok(_) => None,
    };
    let mut trials = vec![];
    if let Some(why) = why {
        println!("left out: every scenario on a kernel of its own: {why}");
        let trial = Trial::test("every scenario on a kernel of its own", move || Err(why.into()));
        trials.push(trial.with_ignored_flag(!require_all()));
    }
    for id in found.unwrap_or_default() {
        let as_reviewed = |s: &Scenario| format!("{id}: {}", s.card.name);
        let without_cause = |s: &Scenario| format!("{id}: nothing without its cause: {}", s.card.name);
        let asked = |name: &str| arguments.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
        let all = || CATALOGUE.scenarios.iter();
        let prompt = |s: &Scenario| format!("{id}: wires are prompt: {}", s.card.name);
        let reviewed: Vec<_> = all().filter(|s| asked(&as_reviewed(s)) || asked(&prompt(s))).collect();
        // The other scenarios run without their cause on the running kernel.
        let own_kernel = |s: &&Scenario| s.needs.contains(&Need::ExclusiveKernel) && asked(&without_cause(s));
        let causeless: Vec<_> = all().filter(own_kernel).collect();
        let kernel = Kernel::new(&id, &reviewed, &[]);
        for scenario in reviewed {
            let kernel = Arc::clone(&kernel);
            let same = Arc::clone(&kernel);
            trials.push(Trial::test(as_reviewed(scenario), move || kernel.as_reviewed(scenario)));
            trials.push(Trial::test(prompt(scenario), move || same.wires_are_prompt(scenario)));
        }
        let kernel = Kernel::new(&id, &causeless, &["--without-cause"]);
        for scenario in causeless {
            let kernel = Arc::clone(&kernel);
            let test = move || nothing_reproduced(&kernel.outcome(scenario)?, scenario);
            trials.push(Trial::test(without_cause(scenario), test));
        }
        for (key, options) in SETTINGS {
            let with = |s: &Scenario| format!("{} {}", as_reviewed(s), options.join(" "));
            let takes_it = |s: &&Scenario| s.settings.iter().any(|setting| setting.key == key);
            let modelled: Vec<_> = all().filter(takes_it).filter(|s| asked(&with(s))).collect();
            let kernel = Kernel::new(&id, &modelled, options);
            for scenario in modelled {
                let kernel = Arc::clone(&kernel);
                trials.push(Trial::test(with(scenario), move || kernel.as_reviewed(scenario)));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
