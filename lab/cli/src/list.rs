//! `faultlab list`: the scenarios of the catalogue.

use std::fmt::Write;

use serde_json::json;

use super::Stop;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::scenario::Shows;
use faultlab_report::Style;

pub(super) fn list(catalogue: &Catalogue, json: bool, style: Style) -> Result<(), Stop> {
    let mut out = String::new();
    if json {
        for scenario in catalogue.scenarios {
            let card = &scenario.card;
            let line = json!({
                "scenario": card.name,
                "family": card.family,
                "title": card.title,
                "needs": scenario.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "arms": scenario.arms().iter().map(|a| a.name).collect::<Vec<_>>(),
                "eras": scenario.eras.iter().map(|e| json!({
                    "name": e.name, "kernels": e.kernels, "reproduces": e.shows == Shows::Reproduced,
                    "not_run": e.not_run,
                })).collect::<Vec<_>>(),
            });
            out.push_str(&text::json(&line));
            out.push('\n');
        }
        return Ok(terminal::print_data(&out)?);
    }
    let mut family = "";
    for scenario in catalogue.scenarios {
        let card = &scenario.card;
        if card.family != family {
            if !family.is_empty() {
                let _ = writeln!(out);
            }
            family = card.family;
            let _ = writeln!(out, "{}", style.dim(family));
        }
        let _ = writeln!(out, "{}", style.bold(card.name));
        let _ = write!(out, "{}", style.paragraph("    ", card.title));
        let eras: Vec<_> = scenario
            .eras
            .iter()
            .filter(|e| e.shows == Shows::Reproduced)
            .map(|e| e.kernels.to_owned())
            .collect();
        let _ = write!(out, "{}", style.hanging("    reproduces on: ", "        ", &eras.join("; ")));
        let needs: Vec<_> = scenario.needs.iter().map(ToString::to_string).collect();
        let _ = write!(out, "{}", style.hanging("    needs: ", "        ", &needs.join(", ")));
    }
    let hint = "`faultlab show SCENARIO` tells the story, `faultlab run SCENARIO` makes it happen.";
    let _ = write!(out, "\n{}", style.paragraph("", hint));
    Ok(terminal::print(&out)?)
}

/// The sentence for words after `list`, which lists everything.
pub(super) fn takes_no(words: &[String]) -> String {
    let words = words.join(" ");
    format!("list takes no words; `faultlab find {words}` says which faults they are about")
}
