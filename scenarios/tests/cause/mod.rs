//! What is demanded of a scenario whose cause was taken away.

use lab::outcome::{Outcome, Verdict};
use lab::scenario::{Scenario, Shows};
use libtest_mimic::Failed;

/// With the control's network the fault arm meets what the control meets.
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
