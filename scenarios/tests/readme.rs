//! The README's table of remedies must agree with the reviewed outcomes.
//!
//! If it does not, `FAULTLAB_README=write cargo test -p faultlab --test readme`
//! rewrites it; review the changes.

use std::fmt::Write;
use std::path::Path;

use lab::remedies::{Remedy, Shown, by_era};
use scenarios::CATALOGUE;

const BEGIN: &str = "<!-- from snapshots/, by scenarios/tests/readme.rs -->\n";
const END: &str = "<!-- end -->\n";

/// The arms of the remedies, each with its price.
fn arms<'a>(remedies: impl Iterator<Item = &'a Remedy>) -> String {
    remedies.map(|remedy| format!("`{}`{}", remedy.arm, remedy.side_effects())).collect::<Vec<_>>().join(", ")
}

fn table() -> String {
    let mut text =
        String::from("| fault | kernels | shown | what helps | what does not |\n|---|---|---|---|---|\n");
    for scenario in CATALOGUE.scenarios {
        let mut name = format!("`{}`", scenario.card.name);
        for found in by_era(&CATALOGUE, scenario) {
            let shown = match found.shown {
                Shown::Fault => "yes",
                Shown::Immune => "no",
                Shown::NotRun => "not run",
            };
            let helps = arms(found.remedies.iter().filter(|remedy| remedy.helps));
            let fails = arms(found.remedies.iter().filter(|remedy| !remedy.helps));
            let kernels = found.era.kernels;
            writeln!(text, "| {name} | {kernels} | {shown} | {helps} | {fails} |").expect("a string");
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
        for found in by_era(&CATALOGUE, scenario) {
            let (name, era) = (scenario.card.name, found.era);
            assert_eq!(found.shown == Shown::NotRun, era.not_run, "{name}@{}", era.name);
        }
    }
}
