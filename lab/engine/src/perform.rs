//! Runs a scenario: its arms side by side, each in its own network, then the verdict
//! and the comparison with the reviewed snapshot.

use std::time::Instant;

use futures_util::future::join_all;

use crate::evidence::kernel_reports::KernelReports;
pub use crate::judgement::{Snapshots, judge_outcome};
use crate::run::ArmRun;
use crate::scenario::{Scenario, ScriptedArm};
use crate::stage::CaptureOptions;
use faultlab_base::error::{Error, Result};
use faultlab_base::text::{Cell, Line};
use faultlab_explain::arrange;
use faultlab_explain::why::Reasons;
use faultlab_model::outcome::{ArmOutcome, Machine, Map, Outcome, Verdict};
use faultlab_model::recording::Recording;
use faultlab_model::scenario::{ArmKind, Environment};
use faultlab_net::wire::all as wires;

/// The options for running a scenario, apart from its environment.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// Where the scenario runs.
    pub machine: Machine,
    /// The variants and remedies to run; all if empty.
    pub only: &'a [String],
    /// Plays only the control and the fault arm, the latter with the control's network
    /// and conduct. Without the cause, nothing must be reproduced.
    pub without_cause: bool,
    /// What to capture; `None` disables captures.
    pub capturing: Option<CaptureOptions>,
}

/// Runs the arms of a scenario and judges them. If a run fails, the outcome's reason
/// says why.
///
/// Call this inside a [`LocalSet`](tokio::task::LocalSet), in namespaces that belong to
/// this run. `on_arm` receives the name of each arm when it ends.
///
/// # Errors
/// [`Error::Exhausted`] if the machine ran out of a resource. Any other failure is
/// reported in the outcome.
pub async fn perform(
    scenario: &Scenario,
    env: &Environment,
    options: RunOptions<'_>,
    reports: &KernelReports,
    snapshots: Snapshots,
    on_arm: &dyn Fn(&str),
) -> Result<Outcome> {
    let begun = Instant::now();
    let mut outcome = Outcome::without_run_in(scenario, env, options.machine, Verdict::Failed, String::new());
    outcome.reason = None;
    outcome.settings = env.settings.iter().collect();
    match scenario.era(env) {
        None => {
            outcome.verdict = Verdict::NotApplicable;
            outcome.reason = Some("no era of this scenario recognises the kernel".into());
        }
        Some(era) => {
            let mut arms = scenario.scripted_on(env, options.only);
            if options.without_cause {
                arms = without_cause(&arms);
            }
            let logged = reports.log.count().unwrap_or_default();
            reports.drops.forget();
            let _ = wires::longest();
            let results = all(scenario, env, &arms, options, reports, on_arm).await;
            outcome.seconds.wire = wires::longest().map(|longest| longest.as_secs_f64());
            let capturing = options.capturing.unwrap_or_default();
            if capturing.captures {
                outcome.log = reports.log.lines_since(logged).into_iter().map(Line::from).collect();
            }
            if let Ok(lost @ 1..) = reports.drops.lost() {
                let line = format!("faultlab: no room for {lost} more packets that the kernel dropped");
                outcome.log.push(line.into());
            }
            match results {
                Ok(played) => {
                    let (arms, mut recordings): (_, Vec<_>) = played.into_iter().unzip();
                    recordings.iter_mut().flatten().for_each(arrange);
                    outcome.arms = arms;
                    judge_outcome(&mut outcome, scenario, era, options.without_cause, snapshots);
                    if capturing.explains || !outcome.expected || outcome.without_reference {
                        explain(&mut outcome, &recordings);
                    }
                    if capturing.captures {
                        let captures = recordings.into_iter().map(|recording| recording.map(|r| r.capture));
                        outcome.arms.iter_mut().zip(captures).for_each(|(arm, c)| arm.capture = c);
                    }
                }
                Err(Error::Missing(missing)) => {
                    outcome.verdict = Verdict::NotApplicable;
                    outcome.reason = Some(missing.to_string().into());
                }
                Err(error @ Error::Exhausted(_)) => return Err(error),
                Err(error) => outcome.reason = Some(error.to_string().into()),
            }
        }
    }
    // A scenario that cannot run here does not differ from what is expected here.
    outcome.expected |= outcome.verdict == Verdict::NotApplicable;
    let milliseconds = begun.elapsed().as_millis();
    outcome.seconds.wall = f64::from(u32::try_from(milliseconds).unwrap_or(u32::MAX)) / 1000.0;
    Ok(outcome)
}

/// The control arm, and the fault arm without its change.
fn without_cause(arms: &[ScriptedArm]) -> Vec<ScriptedArm> {
    let Some(control) = arms.iter().find(|scripted| scripted.arm.kind == ArmKind::Control) else {
        return vec![];
    };
    let fault = arms.iter().filter(|scripted| scripted.arm.kind == ArmKind::Fault);
    [control.clone()].into_iter().chain(fault.map(|fault| fault.unchanged_from(control))).collect()
}

/// Sets up all arms and then plays them concurrently; a sequential scenario's arms are
/// set up and played one after another. No arm is set up while others play: building a
/// network blocks the thread, which would stall their wires.
async fn all(
    scenario: &Scenario,
    env: &Environment,
    arms: &[ScriptedArm],
    options: RunOptions<'_>,
    reports: &KernelReports,
    on_arm: &dyn Fn(&str),
) -> Result<Vec<Played>> {
    let mut outcomes = vec![];
    if (scenario.sequential)(env) {
        for arm in arms {
            let run = ArmRun::set_up(scenario, env, arm, reports, options.capturing).await?;
            run.await_witness();
            outcomes.push(play(run, options.machine, on_arm).await?);
        }
        return Ok(outcomes);
    }
    let mut runs = vec![];
    for arm in arms {
        runs.push(ArmRun::set_up(scenario, env, arm, reports, options.capturing).await?);
    }
    // Wait only after all arms are set up: their captures start concurrently.
    runs.iter().for_each(ArmRun::await_witness);
    let plays = runs.into_iter().map(|run| play(run, options.machine, on_arm));
    join_all(plays).await.into_iter().collect()
}

/// The outcome of an arm, and its recording if there was a witness.
type Played = (ArmOutcome, Option<Recording>);

async fn play(run: ArmRun<'_>, machine: Machine, on_arm: &dyn Fn(&str)) -> Result<Played> {
    let arm = run.arm().name;
    let playing = async {
        let played = tokio::select! {
            biased;
            played = run.within(run.budget(machine), run.play()) => played,
            never = run.watch_waits() => match never {},
        };
        run.stop_wires();
        played
    };
    let played = wires::after_each_step(playing).await;
    played.map_err(|error| match error {
        error @ (Error::Missing(_) | Error::Exhausted(_)) => error,
        error => Error::Lab(format!("{arm} arm: {error}")),
    })?;
    on_arm(arm);
    wires::carry();
    let ended = run.finish();
    wires::carry();
    ended
}

/// Explains every arm whose cells differ from the control's, and the control if it is
/// not healthy, from its own recording alone. An arm with the control's cells needs no
/// explanation, whatever its counters are.
fn explain(outcome: &mut Outcome, recordings: &[Option<Recording>]) {
    let healthy = outcome.arms.iter().find(|arm| arm.kind == ArmKind::Control).cloned();
    let control = outcome.arms.iter().zip(recordings).find(|(arm, _)| arm.kind == ArmKind::Control);
    let control = control.and_then(|(_, recording)| recording.as_ref());
    let reasons_of_control = control.map(|recording| Reasons::of(recording, None));
    for (arm, recording) in outcome.arms.iter_mut().zip(recordings) {
        let Some(recording) = recording else { continue };
        if arm.kind != ArmKind::Control {
            if healthy.as_ref().is_some_and(|control| has_the_cells_of(control, arm)) {
                continue;
            }
            let reasons = Reasons::of(recording, control).beside(reasons_of_control.as_ref());
            arm.why = reasons.into_iter().map(Line::from).collect();
        } else if !outcome.control_is_healthy {
            let reasons = reasons_of_control.iter().flat_map(|reasons| reasons.beside(None));
            arm.why = reasons.map(Line::from).collect();
        }
    }
}

/// Whether an arm has the same cells as the control, regardless of their order.
fn has_the_cells_of(control: &ArmOutcome, arm: &ArmOutcome) -> bool {
    let same = |one: &Map<Cell>, other: &Map<Cell>| {
        one.0.len() == other.0.len() && one.0.iter().all(|(row, cell)| other.get(row) == Some(cell))
    };
    same(&control.observations, &arm.observations) && same(&control.unobserved, &arm.unobserved)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use faultlab_model::scenario::{Arms, Card, Clock};
    use faultlab_net::topology::Topology;

    use super::*;

    fn scenario() -> Scenario {
        let card = Card::for_test("beyond-window", "");
        let arms = |_: &Environment| Arms::control("", Topology::new(), 0).fault("", |arm| arm.conduct = 1);
        Scenario::new(card, ("the connection", "open"), arms, async |_, _| Ok(()))
    }

    #[test]
    fn an_arm_with_the_cells_of_the_control_has_nothing_to_explain() {
        use faultlab_model::recording::HostRecording;

        let recording = |by| {
            let counted = vec![("PAWSEstab".to_owned(), by)];
            let server = HostRecording { name: "server".into(), counted, ..HostRecording::default() };
            Some(Recording { hosts: vec![server], ..Recording::default() })
        };
        let recordings = [recording(0), recording(1)];
        let why = |fault: &str| {
            let mut outcome = faultlab_model::made::outcome("6.1", Verdict::Immune, fault, true);
            explain(&mut outcome, &recordings);
            outcome.arms[1].why.len()
        };
        assert_eq!([why("open"), why("reset")], [0, 1]);
    }

    #[test]
    fn the_fault_without_its_cause_has_the_network_and_the_conduct_of_the_control() {
        let scenario = scenario();
        let env = Environment::new(
            &scenario,
            faultlab_net::kernel::Kernel::running(),
            Clock::Real,
            &BTreeMap::new(),
        );
        let arms = without_cause(&scenario.scripted_on(&env, &[]));
        assert_eq!(arms.iter().map(|scripted| scripted.arm.name).collect::<Vec<_>>(), ["control", "fault"]);
        assert_eq!(arms[0].arm.network, arms[1].arm.network);
        assert!(arms[1].arm.edits.is_empty());
    }
}
