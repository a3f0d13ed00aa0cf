//! Draws the captures of outcomes, for `--ladder` and for reports.

use super::options::Options;
use faultlab_model::outcome::{ArmOutcome, Outcome};
use faultlab_model::scenario::ArmKind;
use faultlab_report::Style;
use faultlab_report::html::{ByArm, Drawn};
use faultlab_report::ladder::{Flows, Ladder};
use faultlab_report::lanes::Lanes;

/// Draws the captures of an outcome, and removes the captures to free their memory.
pub(super) fn take(outcome: &mut Outcome) -> ByArm {
    let control = outcome.arms.iter().find(|arm| arm.kind == ArmKind::Control);
    let control = control.and_then(|arm| arm.capture.as_ref());
    let control = control.map(Flows::of);
    let drawn = |arm: &mut ArmOutcome| {
        let capture = arm.capture.take()?;
        let ladder = match control.as_ref().filter(|_| arm.kind != ArmKind::Control) {
            Some(control) => Ladder::beside(&capture, control),
            None => Ladder::of(&capture),
        };
        Some((arm.name.clone(), Drawn { ladder, lanes: Lanes::of(&capture) }))
    };
    outcome.arms.iter_mut().filter_map(drawn).collect()
}

/// The ladders of control and fault, or of the arms that `--arm` names, as text.
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
        text.push_str(&ladder.text(style.width));
        text.push('\n');
    }
    text
}
