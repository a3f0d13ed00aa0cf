//! `faultlab show`: the description of a scenario.

use serde_json::json;

use super::Stop;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::{Arm, ArmKind, Clock, Number, Setting, Shows, Values};
use faultlab_report::Style;

pub(super) fn show(catalogue: &Catalogue, name: &str, json: bool, style: Style) -> Result<(), Stop> {
    let scenario = catalogue.find(name).map_err(Stop::Usage)?;
    if json {
        return Ok(terminal::print_data(&(text::json(&as_json(scenario)) + "\n"))?);
    }
    Ok(terminal::print(&story(scenario, style))?)
}

/// The network of the fault arm.
fn drawing(arms: &[Arm]) -> String {
    arms.iter().find(|a| a.kind == ArmKind::Fault).map_or(String::new(), |fault| fault.network.to_string())
}

fn story(scenario: &Scenario, style: Style) -> String {
    let (card, arms) = (&scenario.card, scenario.arms());
    let mut text = format!("{}\n{}\n", style.bold(card.name), style.paragraph("", card.title));
    let mut part = |heading: &str, body: String| {
        text.push_str(&style.bold(heading));
        text.push('\n');
        text.push_str(&body);
        text.push('\n');
    };
    part("What people saw", style.paragraph("  ", card.saw));
    let network = textwrap::indent(&drawing(&arms), "  ");
    part("The network, in the fault arm", network);
    part("Why", style.paragraph("  ", card.cause) + &style.hanging("  Decided in: ", "    ", card.function));
    let arm = |a: &Arm| {
        let kind = match a.kind {
            ArmKind::Control | ArmKind::Fault => "",
            ArmKind::Variant => " (variant)",
            ArmKind::Remedy => " (tried against it)",
        };
        let edits = a.edits.iter().map(|edit| style.hanging("    ", "      ", edit));
        style.hanging(&format!("  {}{kind}: ", a.name), "    ", a.change) + &edits.collect::<String>()
    };
    part("Arms, and what each changes", arms.iter().map(arm).collect());
    part(
        "The symptom",
        style.paragraph(
            "  ",
            &format!(
                "The row \"{}\": {:?} in a healthy network.",
                scenario.symptom.row, scenario.symptom.healthy
            ),
        ),
    );
    let era = |e: &faultlab_model::scenario::Era| {
        let shows = match (e.shows, e.not_run) {
            (Shows::Reproduced, false) => "reproduces",
            (Shows::Immune, false) => "immune",
            (Shows::Reproduced, true) => "should reproduce (it never ran there)",
            (Shows::Immune, true) => "should be immune (it never ran there)",
        };
        style.hanging(&format!("  {}: ", e.name), "    ", &format!("{}; {shows}; {}", e.kernels, e.since))
    };
    part("Eras", scenario.eras.iter().map(era).collect());
    part("What cures it", style.paragraph("  ", card.cure));
    if !scenario.settings.is_empty() {
        let heading = "Settings (--set KEY=VALUE; a duration: 90, 15min, 1.5h, \"2d 12h\")";
        part(heading, scenario.settings.iter().map(|s| setting(s, style)).collect());
    }
    part("Reading", card.reading.iter().map(|r| style.hanging("  ", "    ", r)).collect());
    text
}

fn setting(setting: &Setting, style: Style) -> String {
    let values = match setting.values {
        Values::Choice(words) => format!("one of {}", words.join(", ")),
        Values::Number(number) => {
            let Number { short, real, limit, .. } = number;
            let default = if short == real {
                format!("{short} by default")
            } else {
                format!("{short} on this kernel's own clock, {real} in virtual time")
            };
            format!("{default}; {}: {}", number.range(), limit.why)
        }
    };
    style.hanging(&format!("  {}: ", setting.key), "    ", &format!("{}; {values}", setting.about))
}

fn as_json(scenario: &Scenario) -> serde_json::Value {
    let (card, arms) = (&scenario.card, scenario.arms());
    json!({
        "scenario": card.name,
        "family": card.family,
        "title": card.title,
        "saw": card.saw,
        "cause": card.cause,
        "function": card.function,
        "cure": card.cure,
        "reading": card.reading,
        "symptom": {"row": scenario.symptom.row, "healthy": scenario.symptom.healthy},
        "network": drawing(&arms),
        "needs": scenario.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "arms": arms.iter().map(|a| json!({
            "name": a.name, "kind": a.kind, "change": a.change, "edits": a.edits,
        })).collect::<Vec<_>>(),
        "eras": scenario.eras.iter().map(|e| json!({
            "name": e.name, "kernels": e.kernels, "since": e.since, "reproduces": e.shows == Shows::Reproduced,
            "not_run": e.not_run,
        })).collect::<Vec<_>>(),
        "settings": scenario.settings.iter().map(|s| json!({
            "key": s.key, "about": s.about, "default": s.default(Clock::Real), "virtual_default": s.default(Clock::Virtual),
        })).collect::<Vec<_>>(),
    })
}
