//! `faultlab remedies`: which remedy works where.

use std::collections::BTreeMap;

use serde_json::json;

use super::Stop;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::remedies::{EraRemedies, Remedy, Shown, by_era};
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::{Clock, Environment};
use faultlab_net::kernel::Kernel;
use faultlab_report::Style;

/// Prints the remedies of a scenario, or of all.
pub(super) fn remedies(
    catalogue: &Catalogue,
    name: Option<&str>,
    json: bool,
    style: Style,
) -> Result<(), Stop> {
    let scenarios = match name {
        Some(name) => std::slice::from_ref(catalogue.find(name).map_err(Stop::Usage)?),
        None => catalogue.scenarios,
    };
    let kernel = Kernel::running();
    let mut out = String::new();
    for scenario in scenarios {
        let env = Environment::new(scenario, kernel.clone(), Clock::Real, &BTreeMap::default());
        let this = scenario.era(&env).map(|era| era.name);
        let found = by_era(catalogue, scenario);
        if json {
            for era in &found {
                out.push_str(&text::json(&as_json(scenario, era, this)));
                out.push('\n');
            }
        } else {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&as_text(scenario, &found, this, style));
        }
    }
    if json { Ok(terminal::print_data(&out)?) } else { Ok(terminal::print(&out)?) }
}

fn as_text(scenario: &Scenario, found: &[EraRemedies], this: Option<&str>, style: Style) -> String {
    let card = &scenario.card;
    let mut out = format!("{}\n{}", style.bold(card.name), style.paragraph("", card.title));
    for era in found {
        let here = if this == Some(era.era.name) { " (this kernel)" } else { "" };
        let shown = match era.shown {
            Shown::Fault => "",
            Shown::Immune => ": immune",
            Shown::NotRun => ": not run",
        };
        out.push_str(&style.hanging("  ", "    ", &format!("{}{here}{shown}", era.era.kernels)));
        let mut line = |effect: &str, remedy: &Remedy| {
            let text = format!("{}{}: {}", remedy.arm, remedy.side_effects(), remedy.change);
            out.push_str(&style.hanging(&format!("    {effect:<15}"), "                     ", &text));
        };
        era.remedies.iter().filter(|remedy| remedy.helps).for_each(|remedy| line("helps", remedy));
        era.remedies.iter().filter(|remedy| !remedy.helps).for_each(|remedy| line("does not help", remedy));
    }
    out
}

fn as_json(scenario: &Scenario, found: &EraRemedies, this: Option<&str>) -> serde_json::Value {
    let shown = match found.shown {
        Shown::Fault => "reproduced",
        Shown::Immune => "immune",
        Shown::NotRun => "not-run",
    };
    json!({
        "scenario": scenario.card.name,
        "era": found.era.name,
        "kernels": found.era.kernels,
        "this_kernel": this == Some(found.era.name),
        "shown": shown,
        "remedies": found.remedies.iter().map(|remedy| json!({
            "arm": remedy.arm,
            "change": remedy.change,
            "helps": remedy.helps,
            "breaks": remedy.breaks.iter().map(|(row, cell)| (row.to_string(), cell.to_string().into()))
                .collect::<serde_json::Map<String, serde_json::Value>>(),
        })).collect::<Vec<_>>(),
    })
}
