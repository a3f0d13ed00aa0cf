//! A test program for the scenarios of a catalogue, on the running kernel.
//!
//! Each scenario runs twice: as it is, when its outcome must equal the reviewed one, and
//! without its cause, when it must reproduce nothing. An outcome that differs is written
//! next to the snapshot as `*.snap.new`: review it, then rename it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use lab::machine::here::{Checked, Here};
use lab::machine::job::Job;
use lab::machine::worker;
use lab::outcome::{Outcome, Verdict};
use lab::scenario::{Need, Scenario, Shows};
use lab::stage::CaptureOptions;
use lab::{Catalogue, snapshot};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::harness::require_all;
use crate::isolated::runtime;

/// The whole test program of a package with scenarios: `main` returns the
/// result of this function. `snapshots` is the directory with the reviewed
/// outcomes.
///
/// The program starts itself again as a worker, which plays the scenarios in new
/// namespaces.
#[must_use]
pub fn scenarios(catalogue: &Catalogue, snapshots: impl Into<PathBuf>) -> ExitCode {
    Reviewed::new(catalogue, snapshots).main()
}

/// Runs the worker if this program was started as one, to play scenarios of the
/// catalogue; `None` otherwise.
#[must_use]
pub fn as_worker(catalogue: &Catalogue) -> Option<ExitCode> {
    let words: Vec<_> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    worker::asked(&words).map(|parent| worker::main(catalogue, parent))
}

/// The cases to test: every scenario of a catalogue with its defaults, and those that
/// [`set`](Self::set) adds.
#[derive(Debug)]
pub struct Reviewed<'a> {
    catalogue: &'a Catalogue,
    snapshots: PathBuf,
    cases: Vec<Case>,
}

/// A scenario and its settings.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    scenario: &'static Scenario,
    set: BTreeMap<String, String>,
}

impl<'a> Reviewed<'a> {
    /// Every scenario of the catalogue, and the directory with the snapshots.
    #[must_use]
    pub fn new(catalogue: &'a Catalogue, snapshots: impl Into<PathBuf>) -> Self {
        let case = |scenario: &'static Scenario| Case {
            name: scenario.card.name.to_owned(),
            scenario,
            set: BTreeMap::new(),
        };
        let cases = catalogue.scenarios.iter().map(case).collect();
        Self { catalogue, snapshots: snapshots.into(), cases }
    }

    /// Adds a case with settings: `run SCENARIO --set KEY=VALUE ...`.
    ///
    /// # Panics
    /// If the catalogue has no scenario of that name.
    #[must_use]
    pub fn set(mut self, scenario: &str, settings: &[(&str, &str)]) -> Self {
        let found = self.catalogue.find(scenario).unwrap_or_else(|why| panic!("{why}"));
        let set: BTreeMap<_, _> =
            settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let words: String =
            settings.iter().map(|(key, value)| " --set ".to_owned() + key + "=" + value).collect();
        self.cases.push(Case { name: format!("{scenario}{words}"), scenario: found, set });
        self
    }

    /// Runs the tests, or the worker if this program was started as one.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Some(status) = as_worker(self.catalogue) {
            return status;
        }
        let mut arguments = Arguments::from_args();
        // A scenario mostly waits for the kernel's timers.
        arguments.test_threads.get_or_insert(8);
        let program = std::env::current_exe().expect("/proc/self/exe can be read");
        // `--list` works on any machine.
        let checked = (!arguments.list).then(|| runtime().block_on(Here::find(&program)));
        let snapshots: Arc<Path> = self.snapshots.into();
        let mut trials = vec![];
        for case in &self.cases {
            let why = checked.as_ref().and_then(|checked| left_out(case.scenario, checked));
            let here = checked.as_ref().and_then(|c| c.as_ref().ok()).map(|c| c.here.clone());
            let (reviewed, snapshots) = (case.clone(), Arc::clone(&snapshots));
            trials.push(trial("as reviewed", case, here.clone(), why.clone(), move |here| {
                as_reviewed(here, &reviewed, &snapshots)
            }));
            let causeless = case.clone();
            trials.push(trial("nothing without its cause", case, here, why, move |here| {
                nothing_reproduced(&run(here, &causeless, true)?, causeless.scenario)
            }));
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

fn trial(
    kind: &str,
    case: &Case,
    here: Option<Here>,
    why: Option<String>,
    test: impl FnOnce(&Here) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let name = format!("{kind}: {}", case.name);
    if let Some(why) = &why {
        println!("left out: {name}: {why}");
    }
    // A scenario that runs only in a guest does not fail here, even if all is
    // required.
    let elsewhere = case.scenario.needs.contains(&Need::ExclusiveKernel);
    let ignored = why.is_some() && (elsewhere || !require_all());
    let trial = Trial::test(name, move || match (here, why) {
        (Some(here), None) => test(&here),
        (_, why) => Err(why.unwrap_or_default().into()),
    });
    trial.with_ignored_flag(ignored)
}

fn run(here: &Here, case: &Case, without_cause: bool) -> Result<Outcome, Failed> {
    let task = Job::Run {
        scenario: case.scenario.card.name.to_owned(),
        only: vec![],
        set: case.set.clone(),
        without_cause,
        capturing: Some(CaptureOptions::default()),
    };
    runtime().block_on(here.run(task, &mut |_| {})).map_err(|e| e.to_string().into())
}

fn as_reviewed(here: &Here, case: &Case, snapshots: &Path) -> Result<(), Failed> {
    let mut outcome = run(here, case, false)?;
    let name = outcome.snapshot_name(case.scenario.has_timers());
    if let Some(name) = name
        && let Ok(reviewed) = fs::read_to_string(snapshots.join(format!("{name}.snap")))
    {
        outcome = snapshot::with_unseen(&outcome, &snapshot::read(&reviewed)?);
    }
    is_reviewed(&outcome, case.scenario, snapshots)
}

/// Compares an outcome with the reviewed one in that directory, as text. An outcome that
/// differs is written next to it as `*.snap.new`.
///
/// # Errors
/// If the verdict is `failed` or `not-applicable`, or the outcome differs. Where the
/// scenario never ran (`Era::not_run`), it may be `not-applicable`.
pub fn is_reviewed(outcome: &Outcome, scenario: &Scenario, snapshots: &Path) -> Result<(), Failed> {
    let never_ran = scenario.eras.iter().any(|era| era.not_run && Some(era.name) == outcome.era.as_deref());
    if never_ran && outcome.verdict == Verdict::NotApplicable {
        return Ok(());
    }
    if matches!(outcome.verdict, Verdict::Failed | Verdict::NotApplicable) {
        return Err(format!("{}: {}", outcome.verdict, outcome.reason.clone().unwrap_or_default()).into());
    }
    let name = outcome.snapshot_name(scenario.has_timers()).ok_or("the outcome has no era")?;
    Ok(compare(&snapshot::write(outcome), scenario.card.title, &snapshots.join(format!("{name}.snap")))?)
}

fn compare(text: &str, title: &str, file: &Path) -> Result<(), String> {
    let reviewed = fs::read_to_string(file).unwrap_or_default();
    let reviewed = body(&reviewed).trim_end();
    let new = file.with_extension("snap.new");
    if reviewed == text.trim_end() {
        // Left by an earlier run.
        let _ = fs::remove_file(&new);
        return Ok(());
    }
    let written = fs::write(&new, format!("---\ndescription: {title:?}\n---\n{text}"));
    let told = match written {
        Ok(()) => format!("the outcome is in {}; read it, then rename it", new.display()),
        Err(error) => format!("{} cannot be written: {error}", new.display()),
    };
    let was = if reviewed.is_empty() {
        "there is no reviewed outcome".to_owned()
    } else {
        format!("reviewed:\n\n{reviewed}")
    };
    Err(format!("the outcome is not the reviewed one: {told}\n\n{text}\n{was}"))
}

/// The text of a snapshot without insta's header.
fn body(text: &str) -> &str {
    text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")).map_or(text, |(_, body)| body)
}

/// Checks a scenario that ran without its cause: with the control's network and
/// conduct, the fault arm must not differ from the control.
///
/// # Errors
/// If it differs; the message has the verdict.
pub fn nothing_reproduced(outcome: &Outcome, scenario: &Scenario) -> Result<(), Failed> {
    let era = scenario.eras.iter().find(|e| Some(e.name) == outcome.era.as_deref());
    let wanted = match era.ok_or("the outcome has no era")?.shows {
        Shows::Reproduced => Verdict::Failed,
        Shows::Immune => Verdict::Immune,
    };
    let reason = outcome.reason.clone().unwrap_or_default();
    if outcome.verdict != wanted
        || (wanted == Verdict::Failed && !reason.starts_with("nothing was reproduced"))
    {
        return Err(format!("without its cause the verdict is {}: {reason}", outcome.verdict).into());
    }
    Ok(())
}

/// Why a scenario cannot run here; `None` if it can.
fn left_out(scenario: &Scenario, checked: &Result<Checked, lab::Error>) -> Option<String> {
    match checked {
        Err(error) => Some(error.to_string()),
        Ok(_) if scenario.needs.contains(&Need::ExclusiveKernel) => {
            Some("it needs a kernel of its own".into())
        }
        Ok(Checked { abilities, .. }) => abilities
            .iter()
            .filter(|a| !a.optional && scenario.needs.iter().any(|n| n.to_string() == a.need))
            .find_map(|a| a.missing.as_ref().map(ToString::to_string)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_written_beside_the_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let [file, new] = ["a@b.snap", "a@b.snap.new"].map(|name| directory.path().join(name));
        let missing = compare("verdict: reproduced\n", "A title", &file).unwrap_err();
        assert!(missing.contains("there is no reviewed outcome"), "{missing}");
        // As a person does after reviewing it.
        fs::rename(&new, &file).unwrap();
        compare("verdict: reproduced\n", "A title", &file).unwrap();
        let differs = compare("verdict: immune\n", "A title", &file).unwrap_err();
        assert!(differs.contains("verdict: immune\n\nreviewed:\n\nverdict: reproduced"), "{differs}");
        compare("verdict: reproduced\n", "A title", &file).unwrap();
        assert!(!new.exists());
    }

    #[test]
    fn a_snapshot_needs_no_header() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a@b.snap");
        fs::write(&file, "verdict: reproduced\n").unwrap();
        compare("verdict: reproduced\n", "A title", &file).unwrap();
    }
}
