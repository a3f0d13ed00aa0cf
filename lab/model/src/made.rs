//! An outcome for tests, also of other crates (feature `made`).

use crate::outcome::{ArmOutcome, Machine, Map, Outcome, Seconds, Verdict};
use crate::scenario::{ArmKind, Clock};

/// An outcome of `beyond-window` with `fault` as the symptom cell of its fault arm.
#[must_use]
pub fn outcome(kernel: &str, verdict: Verdict, fault: &str, expected: bool) -> Outcome {
    let arm = |name: &str, kind, cell: &str| ArmOutcome {
        observations: Map(vec![("the connection".into(), cell.into())]),
        ..ArmOutcome::new(name, kind)
    };
    Outcome {
        scenario: "beyond-window".into(),
        kernel: kernel.into(),
        kernel_id: Some(kernel.into()),
        machine: Machine::Vm,
        clock: Clock::Virtual,
        era: None,
        verdict,
        expected,
        without_reference: false,
        reason: (!expected).then(|| "nothing was reproduced".into()),
        settings: Map::default(),
        symptom: "the connection".into(),
        control_is_healthy: true,
        arms: vec![arm("control", ArmKind::Control, "open"), arm("fault", ArmKind::Fault, fault)],
        log: vec![],
        seconds: Seconds { wall: 1.0, virtual_time: Some(2.0), wire: None },
    }
}
