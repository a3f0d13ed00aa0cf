//! `faultlab merge`: shards' results back into one matrix.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Stop;
use super::run::Tally;
use crate::outcome::Outcome;
use crate::report::Style;
use crate::report::matrix::{Column, matrix};

/// What can be typed.
#[derive(Debug, Args)]
pub struct Merge {
    /// Files that `faultlab run --json` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn merge(merge: &Merge, style: Style) -> Result<ExitCode, Stop> {
    let mut columns: Vec<Column> = vec![];
    for file in &merge.files {
        let wrong = |why: String| Stop::Usage(format!("{}: {why}", file.display()));
        let text = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let outcome: Outcome =
                serde_json::from_str(line).map_err(|e| wrong(format!("line {}: {e}", number + 1)))?;
            let at = columns.iter().position(|c| c.kernel == outcome.kernel);
            let at = at.unwrap_or_else(|| {
                columns.push(Column { kernel: outcome.kernel.clone(), outcomes: vec![] });
                columns.len() - 1
            });
            if columns[at].outcomes.iter().any(|o| o.scenario == outcome.scenario) {
                return Err(wrong(format!("{} on {} is there twice", outcome.scenario, outcome.kernel)));
            }
            columns[at].outcomes.push(outcome);
        }
    }
    // The order in which a person counts: 5.10 before 6.1, 6.9 before 6.12.
    columns.sort_by_cached_key(|c| numbers(&c.kernel));
    let outcomes: Vec<&Outcome> = columns.iter().flat_map(|c| &c.outcomes).collect();
    let tally = Tally::of(&outcomes);
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{}", matrix(&columns, style), tally.sentence())?;
    Ok(ExitCode::from(u8::from(tally.failed(false))))
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
