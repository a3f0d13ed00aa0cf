//! A play does not know which arm it plays, so the verdict depends on observations
//! only.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use faultlab_testkit::{alone_async, applicable};
use lab::evidence::kernel_reports::Opened;
use lab::kernel::Kernel;
use lab::outcome::{Machine, Outcome, Verdict};
use lab::perform::{RunOptions, perform};
use lab::prelude::*;

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_fault_without_an_edit_makes_no_difference,
    a_cut_that_fails_to_cut_is_not_reproduced,
    a_fault_without_its_edit_is_the_control,
    no_play_can_tell_its_arm_from_its_stage,
];

const CARD: Card = Card::for_test("dead-peer", "A peer is dead");

/// Whether the play cuts the link.
#[derive(Debug, Clone)]
struct Conduct {
    cut: bool,
}

fn arms(edit: impl FnOnce(&mut Setup<Conduct>)) -> Arms<Conduct> {
    let network = Topology::new().hosts(["client", "server"]);
    let network = network.wire("client 10.0.0.1/24", "server 10.0.0.2/24");
    Arms::control("the link lives", network, Conduct { cut: false }).fault("the link is cut", edit)
}

/// Cuts the link if the conduct says so and the wire `obeys`, then connects to the
/// other side.
async fn cut_and_ask(stage: &Stage<'_>, conduct: &Conduct, obeys: bool) -> Result<()> {
    let cut = Rc::new(Cell::new(false));
    let link = Rc::clone(&cut);
    stage.wire("client", "server", policy::Discard::matching(move |_, _| link.get()))?;
    cut.set(conduct.cut && obeys);
    let client = ([10, 0, 0, 1], 7);
    let met = connect(stage.host("server"), 0, client, Duration::from_millis(500)).await?;
    stage.observe("the peer", if matches!(*met, Connect::TimedOut { .. }) { "dead" } else { "alive" });
    stage.because(format!("a SYN to the peer met: {}", *met));
    Ok(())
}

async fn honest(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    cut_and_ask(stage, conduct, true).await
}

async fn cut_that_fails(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    cut_and_ask(stage, conduct, false).await
}

/// Observes everything that a stage shows of itself, as the symptom's cell.
async fn curious(stage: &Stage<'_>, _: &Conduct) -> Result<()> {
    let failed = stage.until("what never comes", || Err(Error::Lab("refused".into()))).await;
    stage.observe("the peer", format!("{stage:?}, {failed:?}, {:?}", stage.env));
    Ok(())
}

fn run(scenario: Scenario, without_cause: bool) -> Outcome {
    let (send, receive) = std::sync::mpsc::channel();
    alone_async(async move || {
        let env = Environment::new(&scenario, Kernel::running(), Clock::Real, &BTreeMap::new());
        let options = RunOptions { machine: Machine::Here, only: &[], without_cause, capturing: None };
        let reports = Opened::open(false).listen();
        let performed = perform(&scenario, &env, options, &reports, |_| None, &|_| {});
        send.send(performed.await).expect("somebody waits");
    });
    let outcome = receive.recv().expect("an answer").expect("an outcome");
    applicable(match outcome.verdict {
        Verdict::NotApplicable => {
            Err(Error::missing(outcome.reason.as_deref().unwrap_or_default(), "run it where it is"))
        }
        _ => Ok(outcome),
    })
}

fn nothing_was_reproduced(outcome: &Outcome) {
    let reason = outcome.reason.clone().unwrap_or_default();
    assert_eq!(outcome.verdict, Verdict::Failed, "{reason}");
    assert!(reason.starts_with("nothing was reproduced: the peer is \"alive\""), "{reason}");
}

fn a_fault_without_an_edit_makes_no_difference() {
    let scenario = Scenario::new(CARD, ("the peer", "alive"), |_| arms(|_| {}), honest);
    assert_eq!(scenario.arms()[1].edits, [""; 0]);
    nothing_was_reproduced(&run(scenario, false));
}

fn a_cut_that_fails_to_cut_is_not_reproduced() {
    let cut = |_: &Environment| arms(|arm| arm.cut = true);
    let outcome = run(Scenario::new(CARD, ("the peer", "alive"), cut, honest), false);
    assert_eq!(outcome.verdict, Verdict::Reproduced, "{:?}", outcome.reason);
    // Every arm reports what it observed; reports print it with the symptom.
    let because: Vec<_> = outcome.arms.iter().flat_map(|arm| &arm.because).collect();
    assert_eq!(because, ["a SYN to the peer met: refused", "a SYN to the peer met: timed out"]);
    nothing_was_reproduced(&run(Scenario::new(CARD, ("the peer", "alive"), cut, cut_that_fails), false));
}

fn a_fault_without_its_edit_is_the_control() {
    let cut = |_: &Environment| arms(|arm| arm.cut = true);
    nothing_was_reproduced(&run(Scenario::new(CARD, ("the peer", "alive"), cut, honest), true));
}

fn no_play_can_tell_its_arm_from_its_stage() {
    let cut = |_: &Environment| arms(|arm| arm.cut = true);
    let outcome = run(Scenario::new(CARD, ("the peer", "alive"), cut, curious), false);
    let cells: Vec<_> = outcome.arms.iter().filter_map(|arm| arm.observations.get("the peer")).collect();
    assert_eq!(cells.len(), 2);
    assert_eq!(cells[0], cells[1]);
}
