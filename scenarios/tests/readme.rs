//! The README's table of remedies must agree with the reviewed outcomes.
//!
//! If it does not, `FAULTLAB_README=write cargo test -p faultlab --test readme`
//! rewrites it; review the changes.

use std::fmt::Write;
use std::path::Path;

use lab::outcome::Map;
use lab::scenario::{ArmKind, Era, Scenario};
use lab::snapshot::{self, Snapshot};
use lab::text::Cell;
use scenarios::CATALOGUE;

const BEGIN: &str = "<!-- from snapshots/, by scenarios/tests/readme.rs -->\n";
const END: &str = "<!-- end -->\n";

/// The outcome of an era: with the kernel's default timers, or with shorter
/// ones.
fn reviewed(scenario: &Scenario, era: &Era) -> Option<Snapshot> {
    let name = format!("{}@{}", scenario.card.name, era.name);
    let text = (CATALOGUE.snapshots)(&name).or_else(|| (CATALOGUE.snapshots)(&format!("{name}+short")))?;
    Some(snapshot::read(text).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The remedies that restore the control's cell in the symptom row, each with
/// the rows that it breaks; and the remedies that do not.
fn remedies(scenario: &Scenario, outcome: &Snapshot) -> [Vec<String>; 2] {
    let cells = outcome.cells.get(scenario.symptom.row).expect("a snapshot has the symptom row");
    let tried = |arm: &&lab::scenario::Arm| arm.kind == ArmKind::Remedy && cells.get(arm.name).is_some();
    let arms = scenario.arms();
    let (helps, fails): (Vec<_>, Vec<_>) =
        arms.iter().filter(tried).map(|arm| arm.name).partition(|arm| cells.get(arm) == cells.get("control"));
    let helps = helps.into_iter().map(|arm| match harmed(outcome, arm) {
        harmed if harmed.is_empty() => format!("`{arm}`"),
        harmed => format!("`{arm}` (but {})", harmed.join(", ")),
    });
    [helps.collect(), fails.into_iter().map(|arm| format!("`{arm}`")).collect()]
}

/// The rows in which a connection works in the control and in the fault, but
/// not in this arm, each with the arm's cell.
fn harmed(outcome: &Snapshot, arm: &str) -> Vec<String> {
    let healthy = |cell: Option<&Cell>| cell.is_some_and(|c| matches!(c.as_str(), "connected" | "received"));
    let harmed = |(row, cells): &(Cell, Map<Cell>)| {
        let unharmed = healthy(cells.get("control")) && healthy(cells.get("fault"));
        let cell = cells.get(arm).filter(|cell| unharmed && !healthy(Some(cell)))?;
        Some(format!("{row}: {cell}"))
    };
    outcome.cells.0.iter().filter_map(harmed).collect()
}

fn table() -> String {
    let mut text =
        String::from("| fault | kernels | shown | what helps | what does not |\n|---|---|---|---|---|\n");
    for scenario in CATALOGUE.scenarios {
        let mut name = format!("`{}`", scenario.card.name);
        for era in scenario.eras {
            let Some(outcome) = reviewed(scenario, era) else {
                writeln!(text, "| {name} | {} | not run |  |  |", era.kernels).expect("a string");
                name.clear();
                continue;
            };
            // Without a fault there is nothing to remedy.
            let shown = outcome.verdict == "reproduced";
            let lists = if shown { remedies(scenario, &outcome) } else { [vec![], vec![]] };
            let [helps, fails] = lists.map(|arms| arms.join(", "));
            let shown = if shown { "yes" } else { "no" };
            writeln!(text, "| {name} | {} | {shown} | {helps} | {fails} |", era.kernels).expect("a string");
            name.clear();
        }
    }
    text
}

#[test]
fn the_remedies_are_those_of_the_snapshots() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("the table begins");
    let (found, after) = rest.split_once(END).expect("the table ends");
    let wanted = table();
    if found != wanted && std::env::var_os("FAULTLAB_README").is_some_and(|v| v == "write") {
        std::fs::write(&path, [before, BEGIN, &wanted, END, after].concat()).expect("the README is written");
        return;
    }
    assert_eq!(found, wanted, "FAULTLAB_README=write writes the table");
}

#[test]
fn every_scenario_is_introduced() {
    let readme = include_str!("../../README.md");
    for scenario in CATALOGUE.scenarios {
        let row = format!("| `{}` | ", scenario.card.name);
        assert!(readme.contains(&row), "the README does not say what people saw of {}", scenario.card.name);
    }
}

#[test]
fn every_era_that_was_run_has_a_reviewed_outcome() {
    for scenario in CATALOGUE.scenarios {
        for era in scenario.eras {
            let has_one = reviewed(scenario, era).is_some();
            assert_eq!(has_one, !era.not_run, "{}@{}", scenario.card.name, era.name);
        }
    }
}
