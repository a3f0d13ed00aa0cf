//! Outcomes: a table of arms and rows, a verdict by difference, and the comparison
//! with the reviewed snapshot.

mod map;
mod outside;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use map::Map;

use crate::scenario::{ArmKind, Clock, Environment, Fault, Shows, Symptom};
use faultlab_base::text::{Cell, Line, Lines};
use faultlab_net::capture::Capture;
use faultlab_net::kernel::Kernel;

/// The result of a scenario on one kernel.
///
/// The types of its texts clean them. Deserialization limits the number of arms, rows,
/// lines and frames, see [`faultlab_base::limits`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: Cell,
    /// The kernel's release.
    pub kernel: Cell,
    /// How the kernel was requested, as an id of the store or a file; `None` for the
    /// running kernel.
    #[serde(default)]
    pub kernel_id: Option<Cell>,
    /// Where it ran.
    pub machine: Machine,
    /// The clock that the timers followed.
    pub clock: Clock,
    /// The kernel's era in this scenario; `None` if it could not be determined.
    pub era: Option<Cell>,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether the outcome equals the reviewed snapshot of its era. Without a reference,
    /// whether the verdict is the era's; without the cause, whether nothing differs.
    /// Always true if the scenario is not applicable.
    pub expected: bool,
    /// Whether it was judged by difference alone, because its settings differ from those
    /// of the reviewed snapshots, or because no kernel of its era was ever run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub without_reference: bool,
    /// Why it is not as expected, what is missing, or what changes with these settings.
    pub reason: Option<Lines>,
    /// The settings that the arms ran with.
    pub settings: Map<Cell>,
    /// The name of the symptom row.
    pub symptom: Cell,
    /// Whether the control arm showed a healthy network's value in that row.
    #[serde(default)]
    pub control_is_healthy: bool,
    /// One column of the table for each arm.
    pub arms: Vec<ArmOutcome>,
    /// What the kernel logged during the run, if captures were requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Line>,
    /// How long the run took.
    pub seconds: Seconds,
}

/// Where a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// On the running kernel.
    Here,
    /// On a separate kernel, in a guest.
    Vm,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Here => "here",
            Self::Vm => "vm",
        })
    }
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The result of an arm: one column of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmOutcome {
    /// The arm's name.
    pub name: Cell,
    /// Its purpose.
    pub kind: ArmKind,
    /// The one difference from its base arm, in prose.
    pub change: Line,
    /// Whether its symptom cell differs from the control's; `None` if it has none.
    pub symptom: Option<bool>,
    /// The observed cells, by row.
    pub observations: Map<Cell>,
    /// The rows that could not be observed, each with the reason.
    #[serde(rename = "unseen")]
    pub unobserved: Map<Cell>,
    /// The scenario's explanation, one sentence per line.
    pub because: Vec<Line>,
    /// The state of the kernel's tables, such as conntrack's and the sockets, by host.
    pub evidence: Map<Vec<Line>>,
    /// Why it differs from the control: the reason, followed by its evidence. Only if it
    /// was requested, or the outcome is unexpected or has no reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Line>,
    /// What is missing from its capture: some frames, or all of them.
    #[serde(rename = "unwatched", default, skip_serializing_if = "Option::is_none")]
    pub capture_gap: Option<Line>,
    /// The frames, if they were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
}

impl ArmOutcome {
    /// The result of an arm without any observation.
    #[must_use]
    pub fn new(name: impl Into<Cell>, kind: ArmKind) -> Self {
        Self {
            name: name.into(),
            kind,
            change: Line::default(),
            symptom: None,
            observations: Map::default(),
            unobserved: Map::default(),
            because: vec![],
            evidence: Map::default(),
            why: vec![],
            capture_gap: None,
            capture: None,
        }
    }
}

/// How long a scenario took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// On the wall clock.
    pub wall: f64,
    /// In virtual time; `None` on a real clock.
    #[serde(rename = "virtual")]
    pub virtual_time: Option<f64>,
    /// The longest delay that a wire added to a frame beyond what its policy asked for:
    /// the lab's own effect on the network. In virtual time if there is one; `None` if no
    /// wire carried a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<f64>,
}

/// The verdict of a scenario on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The fault arm differs from the control.
    Reproduced,
    /// The fault arm does not differ, as expected of this era.
    Immune,
    /// A kernel feature or privilege is missing.
    NotApplicable,
    /// The lab failed, the control arm was not healthy, or the fault was not reproduced
    /// although the era shows it.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reproduced => "reproduced",
            Self::Immune => "immune",
            Self::NotApplicable => "not-applicable",
            Self::Failed => "failed",
        })
    }
}

/// The verdict by difference, and the reason if it is [`Verdict::Failed`].
///
/// Sets [`ArmOutcome::symptom`] of every arm.
pub fn judge(symptom: &Symptom, shows: Shows, arms: &mut [ArmOutcome]) -> (Verdict, Option<Lines>) {
    let cell = |arms: &[ArmOutcome], kind: ArmKind| {
        arms.iter().find(|a| a.kind == kind).and_then(|a| a.observations.get(symptom.row)).cloned()
    };
    let failed = |reason: String| (Verdict::Failed, Some(reason.into()));
    let Some(control) = cell(arms, ArmKind::Control) else {
        return failed(format!("the control arm has no row {:?}", symptom.row));
    };
    for arm in arms.iter_mut() {
        arm.symptom = arm.observations.get(symptom.row).map(|seen| *seen != control);
    }
    if control != symptom.healthy {
        return failed(format!(
            "the control arm is not healthy: {} is {control:?}, not {:?}",
            symptom.row, symptom.healthy
        ));
    }
    let Some(fault) = cell(arms, ArmKind::Fault) else {
        return failed(format!("the fault arm has no row {:?}", symptom.row));
    };
    match (fault != control, shows) {
        (true, _) => (Verdict::Reproduced, None),
        (false, Shows::Immune) => (Verdict::Immune, None),
        (false, Shows::Reproduced) => failed(format!(
            "nothing was reproduced: {} is {fault:?} with the fault and without it",
            symptom.row
        )),
    }
}

impl Outcome {
    /// The outcome of a scenario that did not run on the kernel of this release, with the
    /// reason. It has no era.
    #[must_use]
    pub fn without_run(
        scenario: &Fault,
        machine: Machine,
        release: &str,
        clock: Clock,
        verdict: Verdict,
        reason: impl Into<Lines>,
    ) -> Self {
        Self {
            scenario: scenario.card.name.into(),
            kernel: release.into(),
            kernel_id: None,
            machine,
            clock,
            era: None,
            verdict,
            expected: verdict == Verdict::NotApplicable,
            without_reference: false,
            reason: Some(reason.into()),
            settings: Map::default(),
            symptom: scenario.symptom.row.into(),
            control_is_healthy: false,
            arms: vec![],
            log: vec![],
            seconds: Seconds { wall: 0.0, virtual_time: None, wire: None },
        }
    }

    /// Like [`without_run`](Self::without_run), with the era of this environment.
    #[must_use]
    pub fn without_run_in(
        scenario: &Fault,
        env: &Environment,
        machine: Machine,
        verdict: Verdict,
        reason: impl Into<Lines>,
    ) -> Self {
        Self {
            era: scenario.era(env).map(|era| era.name.into()),
            ..Self::without_run(scenario, machine, &env.kernel.release, env.clock, verdict, reason)
        }
    }

    /// Whether the fault arm ran without its cause and, as expected, did not differ from
    /// the control.
    #[must_use]
    pub fn nothing_differs_without_the_cause(&self) -> bool {
        self.verdict == Verdict::Failed && self.expected
    }

    /// How the outcome compares with the expected one, as `NOT as expected`; empty if there
    /// was nothing to compare.
    #[must_use]
    pub fn standing(&self) -> &'static str {
        match (self.verdict, self.expected) {
            (Verdict::NotApplicable, _) | (Verdict::Failed, false) => "",
            (_, true) if self.without_reference => "no reference",
            (_, true) => "as expected",
            (_, false) => "NOT as expected",
        }
    }

    /// The environment that its arms ran in: its kernel release, clock and settings.
    #[must_use]
    pub fn environment(&self, scenario: &Fault) -> Environment {
        let mut kernel = Kernel::running();
        kernel.release = self.kernel.to_string();
        let set = self.settings.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Environment::new(scenario, kernel, self.clock, &set)
    }

    /// The names of all rows: the symptom first, then the order in which the arms recorded
    /// them.
    #[must_use]
    pub fn rows(&self) -> Vec<&str> {
        let mut rows = vec![self.symptom.as_str()];
        for arm in &self.arms {
            for row in arm.observations.keys().chain(arm.unobserved.keys()) {
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        rows
    }

    /// The fault arm.
    #[must_use]
    pub fn fault(&self) -> Option<&ArmOutcome> {
        self.arms.iter().find(|a| a.kind == ArmKind::Fault)
    }

    /// The name of its snapshot, `SCENARIO@ERA`, followed by `+short` if the scenario's
    /// timers were shortened. `None` without an era.
    #[must_use]
    pub fn snapshot_name(&self, has_timers: bool) -> Option<String> {
        let short = if has_timers && self.clock == Clock::Real { "+short" } else { "" };
        self.era.as_ref().map(|era| format!("{}@{era}{short}", self.scenario))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMPTOM: Symptom = Symptom { row: "connects", healthy: "connected" };

    fn arms(control: &str, fault: &str, remedy: &str) -> Vec<ArmOutcome> {
        [(ArmKind::Control, control), (ArmKind::Fault, fault), (ArmKind::Remedy, remedy)]
            .into_iter()
            .map(|(kind, cell)| ArmOutcome {
                observations: Map(vec![("connects".into(), cell.into())]),
                ..ArmOutcome::new(format!("{kind:?}"), kind)
            })
            .collect()
    }

    #[test]
    fn a_difference_is_a_fault_and_a_remedy_is_judged_by_the_control() {
        let mut a = arms("connected", "timed out", "connected");
        assert_eq!(judge(&SYMPTOM, Shows::Reproduced, &mut a), (Verdict::Reproduced, None));
        assert_eq!(a.iter().map(|a| a.symptom).collect::<Vec<_>>(), [Some(false), Some(true), Some(false)]);
        // An era believed immune that shows the fault is judged `reproduced`.
        assert_eq!(judge(&SYMPTOM, Shows::Immune, &mut a).0, Verdict::Reproduced);
    }

    #[test]
    fn no_difference_is_immune_only_where_the_era_says_so() {
        let mut a = arms("connected", "connected", "connected");
        assert_eq!(judge(&SYMPTOM, Shows::Immune, &mut a).0, Verdict::Immune);
        let (verdict, reason) = judge(&SYMPTOM, Shows::Reproduced, &mut a);
        assert_eq!(verdict, Verdict::Failed);
        assert!(reason.is_some_and(|r| r.starts_with("nothing was reproduced")));
    }

    #[test]
    fn a_sick_control_proves_nothing() {
        for shows in [Shows::Immune, Shows::Reproduced] {
            let mut a = arms("timed out", "timed out", "connected");
            let (verdict, reason) = judge(&SYMPTOM, shows, &mut a);
            assert_eq!(verdict, Verdict::Failed);
            assert!(reason.is_some_and(|r| r.contains("not healthy")));
        }
    }

    #[test]
    fn a_missing_row_is_no_verdict() {
        let mut a = arms("connected", "timed out", "connected");
        a[1].observations = Map::default();
        assert_eq!(judge(&SYMPTOM, Shows::Immune, &mut a).0, Verdict::Failed);
        assert_eq!(judge(&SYMPTOM, Shows::Immune, &mut []).0, Verdict::Failed);
    }

    #[test]
    fn json_keeps_the_order_of_rows() {
        let map = Map(vec![("z".into(), 1), ("a".into(), 2)]);
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(text, r#"{"z":1,"a":2}"#);
        assert_eq!(serde_json::from_str::<Map<i32>>(&text).unwrap(), map);
    }
}
