use faultlab_model::made;
use faultlab_model::scenario::{Arms, Card, Clock, Environment, Limit, Setting};
use faultlab_net::topology::Topology;

use super::*;

const ERA: Era = Era::every_kernel("a test");
const IMMUNE: Era = ERA.immune();

fn scenario() -> Scenario {
    let card = Card::for_test("beyond-window", "");
    let arms = |env: &Environment| {
        let (timeout, keepalive) = (env.number("timeout"), env.number("keepalive"));
        Arms::control("", Topology::new(), 0)
            .fault("", |arm| arm.conduct = 1)
            .no_effect_if(timeout > 1000, || format!("a timeout of {timeout} s is long enough"))
            .remedy("keepalive", "", |arm| arm.conduct = 2)
            .no_effect_if(keepalive >= timeout, || {
                format!("a keepalive of {keepalive} s is too slow for a timeout of {timeout} s")
            })
            .remedy("drop-invalid", "", |arm| arm.conduct = 3)
    };
    Scenario::new(card, ("the connection", "open"), arms, async |_, _| Ok(())).settings([
        Setting::seconds("timeout", "", 4, 400).at_most(Limit::JIFFIES),
        Setting::seconds("keepalive", "", 1, 100),
    ])
}

/// The snapshot of the defaults: `keepalive` helps, `drop-invalid` does not.
const REVIEWED: Snapshots = |_| {
    Some(
        "verdict: reproduced\nsymptom: the connection\n\n\
         | | control | fault | keepalive | drop-invalid |\n|--|--|--|--|--|\n\
         | the connection | open | reset | open | reset |\n",
    )
};

/// A table with these cells of fault, keepalive and drop-invalid, and this timeout and
/// keepalive, after it was judged.
fn judged(cells: [&str; 3], values: [&str; 2], era: &Era, snapshots: Snapshots) -> Outcome {
    let mut outcome = made::outcome("6.1", Verdict::Failed, cells[0], false);
    outcome.era = Some(era.name.into());
    for (name, cell) in [("keepalive", cells[1]), ("drop-invalid", cells[2])] {
        let observations = [("the connection", cell)].into_iter().collect();
        outcome.arms.push(ArmOutcome { observations, ..ArmOutcome::new(name, ArmKind::Remedy) });
    }
    for (key, value) in ["timeout", "keepalive"].into_iter().zip(values) {
        outcome.settings.insert(key, value.to_owned());
    }
    assert_eq!(outcome.clock, Clock::Virtual);
    judge_outcome(&mut outcome, &scenario(), era, false, snapshots);
    outcome
}

const DEFAULTS: [&str; 2] = ["400", "100"];

#[test]
fn a_table_is_judged_by_difference_and_then_by_its_snapshot() {
    let met = ["reset", "open", "reset"];
    let outcome = judged(met, DEFAULTS, &ERA, REVIEWED);
    assert_eq!((outcome.verdict, outcome.expected, outcome.reason), (Verdict::Reproduced, true, None));
    assert!(!outcome.without_reference);
    let outcome = judged(met, DEFAULTS, &ERA, |_| None);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Reproduced, false));
    assert_eq!(outcome.reason.as_deref(), Some("there is no reviewed snapshot beyond-window@every-kernel"));
    let broken = judged(met, DEFAULTS, &ERA, |_| Some("no snapshot"));
    assert!(broken.reason.unwrap().starts_with("snapshots/beyond-window@every-kernel.snap: "));
    // Without a difference nothing was reproduced, whatever was reviewed.
    let outcome = judged(["open"; 3], DEFAULTS, &ERA, |_| None);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Failed, false));
}

#[test]
fn other_values_are_judged_by_difference_alone() {
    // The snapshot differs, and has no say.
    let outcome = judged(["timed out", "open", "timed out"], ["100", "30"], &ERA, REVIEWED);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Reproduced, true));
    assert!(outcome.without_reference);
    assert_eq!(
        outcome.reason.as_deref(),
        Some("no reference for these values (timeout=100, keepalive=30): judged by difference alone")
    );
    // Nor does it need to exist.
    assert!(judged(["reset", "open", "reset"], ["100", "30"], &ERA, |_| None).expected);
}

#[test]
fn a_remedy_that_does_not_help_with_these_values_is_named_with_the_reason() {
    let outcome = judged(["reset"; 3], ["100", "120"], &ERA, REVIEWED);
    assert!(outcome.expected);
    assert_eq!(
        outcome.reason.as_deref(),
        Some(
            "no reference for these values (timeout=100, keepalive=120): judged by difference alone; keepalive \
             does not help with these values: a keepalive of 120 s is too slow for a timeout of 100 s"
        )
    );
    // A reason that was foreseen and is not observed is not given.
    let outcome = judged(["reset", "open", "open"], ["100", "120"], &ERA, REVIEWED);
    assert_eq!(
        outcome.reason.as_deref(),
        Some(
            "no reference for these values (timeout=100, keepalive=120): judged by difference alone; \
             drop-invalid helps with these values, but not with the defaults"
        )
    );
}

#[test]
fn values_with_which_the_fault_does_not_show_prove_nothing() {
    let outcome = judged(["open"; 3], ["2000", "100"], &ERA, REVIEWED);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Failed, false));
    assert_eq!(
        outcome.reason.as_deref(),
        Some(
            "no reference for these values (timeout=2000): judged by difference alone; nothing was reproduced: \
             the connection is \"open\" with the fault and without it: a timeout of 2000 s is long enough"
        )
    );
    let outcome = judged(["open"; 3], ["100", "30"], &IMMUNE, REVIEWED);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Immune, true));
    let outcome = judged(["reset", "open", "open"], ["100", "30"], &IMMUNE, REVIEWED);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Reproduced, false));
    assert!(
        outcome
            .reason
            .unwrap()
            .contains("it is reproduced, but kernels of the era every-kernel should be immune")
    );
}

#[test]
fn without_its_cause_a_fault_must_not_differ() {
    for (fault, expected) in [("open", true), ("reset", false)] {
        let mut outcome = made::outcome("6.1", Verdict::Failed, fault, false);
        judge_outcome(&mut outcome, &scenario(), &ERA, true, |_| None);
        assert_eq!(outcome.expected, expected);
    }
}

#[test]
fn an_era_that_nobody_ran_is_judged_by_difference_alone() {
    let met = ["reset", "open", "reset"];
    let outcome = judged(met, DEFAULTS, &ERA.not_run(), |_| None);
    assert_eq!((outcome.verdict, outcome.expected), (Verdict::Reproduced, true));
    assert!(outcome.without_reference);
    assert_eq!(
        outcome.reason.unwrap(),
        "no reference for kernels of this era (every kernel, today's too), on which it never ran: judged by \
         difference alone; drop-invalid does not help on this kernel"
    );
    let outcome = judged(met, DEFAULTS, &IMMUNE.not_run(), |_| None);
    assert!(!outcome.expected);
}
