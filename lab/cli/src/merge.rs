//! `faultlab merge`: shards' results back into one matrix.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Stop;
use super::run::Tally;
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::outcome::Outcome;
use faultlab_report::Style;
use faultlab_report::matrix::{Column, matrix};

/// What can be typed.
#[derive(Debug, Args)]
pub struct Merge {
    /// Files that `faultlab run --json` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn merge(catalogue: &Catalogue, merge: &Merge, style: Style) -> Result<ExitCode, Stop> {
    let mut columns: Vec<Column> = vec![];
    for file in &merge.files {
        let wrong = |why: String| Stop::Usage(format!("{}: {why}", file.display()));
        let text = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let outcome: Outcome =
                serde_json::from_str(line).map_err(|e| wrong(format!("line {}: {e}", number + 1)))?;
            // As `run` heads the column of the whole matrix.
            let kernel = outcome.kernel_id.as_ref().unwrap_or(&outcome.kernel).clone();
            let at = columns.iter().position(|c| c.kernel == kernel);
            let at = at.unwrap_or_else(|| {
                columns.push(Column { kernel, outcomes: vec![] });
                columns.len() - 1
            });
            let column = &columns[at];
            if column.outcomes.iter().any(|o| o.scenario == outcome.scenario) {
                return Err(wrong(format!("{} on {} is there twice", outcome.scenario, column.kernel)));
            }
            columns[at].outcomes.push(outcome);
        }
    }
    // The order in which a person counts: 5.10 before 6.1, 6.9 before 6.12.
    columns.sort_by_cached_key(|c| c.outcomes.first().map(|o| numbers(&o.kernel)));
    let row = |o: &Outcome| catalogue.scenarios.iter().position(|s| s.card.name == o.scenario);
    for column in &mut columns {
        // What this catalogue does not know comes last.
        column.outcomes.sort_by_key(|o| row(o).unwrap_or(usize::MAX));
    }
    let outcomes: Vec<&Outcome> = columns.iter().flat_map(|c| &c.outcomes).collect();
    let tally = Tally::of(&outcomes);
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{}", matrix(&columns, style), tally.sentence())?;
    Ok(ExitCode::from(u8::from(tally.failed(false))))
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
