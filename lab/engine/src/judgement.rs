//! Judges an outcome. The verdict follows from the difference between the arms. Whether
//! it is the expected one is decided by the reviewed snapshot of the era, or by the
//! difference alone if no snapshot has these settings.

use crate::scenario::Scenario;
use faultlab_model::outcome::{ArmOutcome, Outcome, Verdict, judge};
use faultlab_model::scenario::{Arm, ArmKind, Era, Shows};
use faultlab_model::snapshot::{self, Snapshot};

/// Looks up a snapshot by `scenario@era`, as written by insta.
pub type Snapshots = fn(&str) -> Option<&'static str>;

/// Sets the outcome's verdict, from the difference between its arms, and whether it is
/// the expected one in this era. The result depends only on the outcome, so the host
/// computes it again from a guest's report.
pub fn judge_outcome(
    outcome: &mut Outcome,
    scenario: &Scenario,
    era: &Era,
    without_cause: bool,
    snapshots: Snapshots,
) {
    (outcome.verdict, outcome.reason) = judge(&scenario.symptom, era.shows, &mut outcome.arms);
    outcome.control_is_healthy = outcome.arms.iter().any(|arm| {
        let cell = arm.observations.get(scenario.symptom.row);
        arm.kind == ArmKind::Control && cell.is_some_and(|c| c == scenario.symptom.healthy)
    });
    if without_cause {
        let reproduced = outcome.fault().and_then(|fault| fault.symptom);
        outcome.expected = outcome.control_is_healthy && reproduced == Some(false);
        return;
    }
    let value = |key: &str| outcome.settings.get(key).map(faultlab_base::text::Cell::as_str);
    let values: Vec<_> = scenario
        .other_numbers(outcome.clock, value)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let reference = if !values.is_empty() {
        Err(format!("for these values ({})", values.join(", ")))
    } else if era.not_run {
        Err(format!("for kernels of this era ({}), on which it never ran", era.kernels))
    } else {
        Ok(())
    };
    match reference {
        Ok(()) => compare(outcome, scenario, snapshots),
        Err(missing) => without_reference(outcome, scenario, era, &missing, snapshots),
    }
}

fn compare(outcome: &mut Outcome, scenario: &Scenario, snapshots: Snapshots) {
    let Some(name) = outcome.snapshot_name(scenario.has_timers()) else { return };
    if outcome.verdict == Verdict::Failed {
        return;
    }
    let differences = match snapshots(&name).map(snapshot::read) {
        Some(Ok(snapshot)) => snapshot::differences(outcome, &snapshot),
        Some(Err(error)) => vec![format!("snapshots/{name}.snap: {error}")],
        None => vec![format!("there is no reviewed snapshot {name}")],
    };
    outcome.expected = differences.is_empty();
    if !differences.is_empty() {
        outcome.reason = Some(differences.join("; ").into());
    }
}

/// Judges an outcome by difference alone; `missing` says what has no reference. The
/// snapshot, if any, was recorded with the default settings; it only shows which remedies
/// help with those.
fn without_reference(
    outcome: &mut Outcome,
    scenario: &Scenario,
    era: &Era,
    missing: &str,
    snapshots: Snapshots,
) {
    let arms = arms_of(outcome, scenario);
    let of = |name: &str| arms.iter().find(|arm| arm.name == name);
    let why = |name: &str| match of(name).and_then(|arm| arm.no_effect.as_deref()) {
        Some(why) => format!(": {why}"),
        None => String::new(),
    };
    outcome.without_reference = true;
    outcome.expected = matches!(
        (outcome.verdict, era.shows),
        (Verdict::Reproduced, Shows::Reproduced) | (Verdict::Immune, Shows::Immune)
    );
    let mut sentences = vec![format!("no reference {missing}: judged by difference alone")];
    if let Some(reason) = outcome.reason.take() {
        let fault = outcome.fault().filter(|fault| fault.symptom == Some(false));
        sentences.push(reason.to_string() + &fault.map_or(String::new(), |fault| why(&fault.name)));
    } else if !outcome.expected {
        sentences
            .push(format!("it is {}, but kernels of the era {} should be immune", outcome.verdict, era.name));
    }
    let name = outcome.snapshot_name(scenario.has_timers());
    let snapshot = name.and_then(|name| snapshot::read(snapshots(&name)?).ok());
    let values = if era.not_run { "on this kernel" } else { "with these values" };
    let remedies = outcome.arms.iter().filter(|arm| arm.kind == ArmKind::Remedy);
    if outcome.verdict == Verdict::Reproduced {
        sentences.extend(remedies.filter_map(|arm| {
            let helps = !arm.symptom?;
            let helps_by_default = snapshot.as_ref().and_then(|snapshot| is_healthy(snapshot, outcome, arm));
            match (helps, helps_by_default) {
                (false, None | Some(true)) => {
                    Some(format!("{} does not help {values}{}", arm.name, why(&arm.name)))
                }
                (true, Some(false)) => {
                    Some(format!("{} helps {values}, but not with the defaults", arm.name))
                }
                _ => None,
            }
        }));
    }
    outcome.reason = Some(sentences.join("; ").into());
}

/// Whether an arm has the control's symptom cell in a snapshot; `None` if the snapshot
/// does not have both cells.
fn is_healthy(snapshot: &Snapshot, outcome: &Outcome, arm: &ArmOutcome) -> Option<bool> {
    let cells = snapshot.cells.get(&outcome.symptom)?;
    let control = outcome.arms.iter().find(|arm| arm.kind == ArmKind::Control)?;
    Some(cells.get(&arm.name)? == cells.get(&control.name)?)
}

/// The arms of the scenario with the outcome's values.
fn arms_of(outcome: &Outcome, scenario: &Scenario) -> Vec<Arm> {
    scenario.arms_on(&outcome.environment(scenario), &[])
}

#[cfg(test)]
mod tests;
