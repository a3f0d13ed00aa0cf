//! `--ladder`: draws the packets of arms in the terminal.

use super::options::Options;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::ArmKind;
use faultlab_report::Style;
use faultlab_report::html::{ByArm, Drawn};
use faultlab_report::ladder::Ladder;
use faultlab_report::lanes::Lanes;

/// Draws the captures of an outcome, and removes them from it.
pub(super) fn take(outcome: &mut Outcome) -> ByArm {
    let drawn = |arm: &mut faultlab_model::outcome::ArmOutcome| {
        let capture = arm.capture.take()?;
        Some((arm.name.clone(), Drawn { ladder: Ladder::of(&capture), lanes: Lanes::of(&capture) }))
    };
    outcome.arms.iter_mut().filter_map(drawn).collect()
}

/// The ladders of control and fault, or of the requested arms.
pub(super) fn text(outcome: &Outcome, drawn: &ByArm, options: &Options, style: Style) -> String {
    let mut text = String::new();
    for arm in &outcome.arms {
        let wanted = if options.only.is_empty() {
            matches!(arm.kind, ArmKind::Control | ArmKind::Fault)
        } else {
            options.only.iter().any(|name| arm.name == *name)
        };
        let Some(Drawn { ladder, .. }) = drawn.get(&arm.name).filter(|_| wanted) else { continue };
        let kernel = outcome.kernel_id.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
        text.push_str(&style.bold(&format!("{}, {} arm{kernel}", outcome.scenario, arm.name)));
        text.push('\n');
        text.push_str(&style.paragraph("", &arm.change));
        text.push('\n');
        text.push_str(&ladder.text());
        text.push('\n');
    }
    text
}
