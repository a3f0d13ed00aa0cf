//! Every scenario on the running kernel, compared with its reviewed outcome;
//! and every scenario without its cause, which must then reproduce nothing.
//!
//! A new outcome is written to `snapshots/*.snap.new`; read it, then rename it.

mod cause;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lab::machine::here::{Checked, Here};
use lab::machine::job::Job;
use lab::outcome::{Outcome, Verdict};
use lab::scenario::{Need, Scenario};
use lab::snapshot;
use lab::stage::CaptureOptions;
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::CATALOGUE;

use cause::nothing_reproduced;

/// A scenario with what is set for it.
struct Case {
    name: String,
    scenario: &'static Scenario,
    set: BTreeMap<String, String>,
}

fn cases() -> Vec<Case> {
    let plain = CATALOGUE.scenarios.iter().map(|scenario| Case {
        name: scenario.card.name.to_owned(),
        scenario,
        set: BTreeMap::new(),
    });
    let models = ["tw-recycle-nat", "tw-recycle-pod-and-node"].into_iter().flat_map(|name| {
        ["model", "model-3.10"].into_iter().map(move |model| Case {
            name: format!("{name} --set recycle={model}"),
            scenario: CATALOGUE.find(name).expect("it is in the catalogue"),
            set: BTreeMap::from([("recycle".to_owned(), model.to_owned())]),
        })
    });
    plain.chain(models).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn run(here: &Here, case: &Case, without_cause: bool) -> Result<Outcome, Failed> {
    let job = Job::Run {
        scenario: case.scenario.card.name.to_owned(),
        only: vec![],
        set: case.set.clone(),
        without_cause,
        looks: Some(CaptureOptions::default()),
    };
    runtime().block_on(here.run(job, &mut |_| {})).map_err(|e| e.to_string().into())
}

/// The outcome is the reviewed one.
fn as_reviewed(here: &Here, case: &Case) -> Result<(), Failed> {
    let mut outcome = run(here, case, false)?;
    if matches!(outcome.verdict, Verdict::Failed | Verdict::NotApplicable) {
        return Err(format!("{}: {}", outcome.verdict, outcome.reason.unwrap_or_default()).into());
    }
    let name = outcome.snapshot_name(case.scenario.has_timers()).ok_or("the outcome has no era")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    if let Ok(reviewed) = std::fs::read_to_string(folder.join(format!("{name}.snap"))) {
        outcome = snapshot::with_unseen(&outcome, &snapshot::read(&reviewed)?);
    }
    insta::with_settings!({
        snapshot_path => folder,
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => case.scenario.card.title,
    }, {
        insta::assert_snapshot!(name, snapshot::write(&outcome));
    });
    Ok(())
}

/// With the cause taken away, the fault arm meets what the control meets.
fn nothing_without_cause(here: &Here, case: &Case) -> Result<(), Failed> {
    let outcome = run(here, case, true)?;
    nothing_reproduced(&outcome, case.scenario)
}

/// Why a scenario cannot run here, if it cannot.
fn left_out(scenario: &Scenario, checked: &Result<Checked, lab::Error>) -> Option<String> {
    match checked {
        Err(error) => Some(error.to_string()),
        Ok(_) if scenario.needs.contains(&Need::OwnKernel) => Some("it needs a kernel of its own".into()),
        Ok(Checked { abilities, .. }) => abilities
            .iter()
            .filter(|a| !a.optional && scenario.needs.iter().any(|n| n.to_string() == a.need))
            .find_map(|a| a.missing.clone()),
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A scenario mostly waits for the kernel's timers.
    arguments.test_threads.get_or_insert(8);
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_faultlab"));
    let checked = runtime().block_on(Here::find(&executable));
    let require_all = std::env::var_os("FAULTLAB_REQUIRE_ALL").is_some_and(|v| v == "1");
    let mut trials = vec![];
    for (kind, test) in [
        ("as reviewed: ", as_reviewed as fn(&Here, &Case) -> Result<(), Failed>),
        ("nothing without its cause: ", nothing_without_cause),
    ] {
        for case in cases() {
            let name = format!("{kind}{}", case.name);
            let why = left_out(case.scenario, &checked);
            if let Some(why) = &why {
                println!("left out: {name}: {why}");
            }
            let here = checked.as_ref().ok().map(|c| c.here.clone());
            // FAULTLAB_REQUIRE_ALL=1 makes a failure of what is left out, except
            // of what tests/kernels.rs runs.
            let elsewhere = case.scenario.needs.contains(&Need::OwnKernel);
            let ignored = why.is_some() && (elsewhere || !require_all);
            let trial = Trial::test(name, move || match (here, why) {
                (Some(here), None) => test(&here, &case),
                (_, why) => Err(why.unwrap_or_default().into()),
            });
            trials.push(trial.with_ignored_flag(ignored));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
