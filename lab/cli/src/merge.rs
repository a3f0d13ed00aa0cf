//! `faultlab merge`: combines the JSON results of several runs, or of shards, into one
//! matrix.

use std::collections::{HashMap, HashSet};
use std::fs::{File, FileType};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use nix::fcntl::OFlag;
use serde::Deserialize;

use super::Stop;
use super::shard::{Part, Parts};
use faultlab_base::error::Error;
use faultlab_base::text::Cell;
use faultlab_base::{limits, terminal};
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::outcome::Outcome;
use faultlab_report::Style;
use faultlab_report::matrix::{Column, matrix};
use faultlab_report::tally::Tally;

/// What can be typed.
#[derive(Debug, Args)]
pub struct Merge {
    /// Files that `faultlab run --json` wrote; of a run in shards, those of all its shards
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn merge(catalogue: &Catalogue, merge: &Merge, style: Style) -> Result<ExitCode, Stop> {
    let mut merged = Merged::default();
    let incomplete = |why: String| Stop::Lab(Error::Lab(why));
    for (number, file) in merge.files.iter().enumerate() {
        let wrong = |why: String| format!("{}: {why}", file.display());
        let lines = merged.read(number, file).map_err(|why| Stop::Usage(wrong(why)))?;
        if lines == 0 {
            return Err(incomplete(wrong("there is nothing to merge: its run wrote no outcome".to_owned())));
        }
    }
    merged.parts.complete().map_err(incomplete)?;
    if merged.columns.is_empty() {
        return Err(incomplete("there is nothing to merge: no shard has an outcome".to_owned()));
    }
    let mut columns = merged.columns;
    // Numeric order: 5.10 before 6.1, 6.9 before 6.12.
    columns.sort_by_cached_key(|c| c.outcomes.first().map(|o| numbers(&o.kernel)));
    let row = |o: &Outcome| catalogue.scenarios.iter().position(|s| s.card.name == o.scenario);
    for column in &mut columns {
        // Scenarios that the catalogue does not have come last.
        column.outcomes.sort_by_key(|o| row(o).unwrap_or(usize::MAX));
    }
    let tally = Tally::of(columns.iter().flat_map(|c| &c.outcomes));
    terminal::print(&format!("{}\n{}\n", matrix(&columns, style), tally.sentence()))?;
    Ok(ExitCode::from(u8::from(tally.failed(false))))
}

/// A line of `run --json`, or the line of a shard without outcomes.
#[derive(Debug, Deserialize)]
struct Tag {
    shard: Option<Part>,
    scenario: Option<serde::de::IgnoredAny>,
}

/// The results read so far.
#[derive(Debug, Default)]
struct Merged {
    columns: Vec<Column>,
    /// The index of each kernel's column in `columns`.
    places: HashMap<Cell, usize>,
    /// The known outcomes, by column and scenario.
    known: HashSet<(usize, Cell)>,
    scenarios: HashSet<Cell>,
    parts: Parts,
    bytes: u64,
}

impl Merged {
    /// Reads a file and returns its number of non-blank lines.
    fn read(&mut self, number: usize, path: &Path) -> Result<usize, String> {
        let mut file = BufReader::new(open(path)?);
        let (mut line, mut lines) = (vec![], 0);
        for count in 1.. {
            line.clear();
            // One byte more than the limit, to detect a line that is too long.
            let most = limits::JSON_LINE as u64 + 1;
            let read = file.by_ref().take(most).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
            if read == 0 {
                break;
            }
            self.bytes += read as u64;
            if line.len() > limits::JSON_LINE {
                return Err(format!("line {count} is longer than {} MiB", limits::JSON_LINE >> 20));
            }
            if self.bytes > limits::MERGED {
                return Err(format!("the files have more than {} MiB together", limits::MERGED >> 20));
            }
            if !line.trim_ascii().is_empty() {
                lines += 1;
                self.take(number, &line).map_err(|why| format!("line {count}: {why}"))?;
            }
        }
        Ok(lines)
    }

    fn take(&mut self, file: usize, line: &[u8]) -> Result<(), String> {
        let tag: Tag = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let empty = tag.shard.is_some() && tag.scenario.is_none();
        let taken = tag.shard.map_or(Ok(true), |part| self.parts.note(part, file, !empty))?;
        if empty || !taken {
            return Ok(());
        }
        let outcome: Outcome = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        // The same heading as in the matrix of `run`.
        let kernel = outcome.kernel_id.as_ref().unwrap_or(&outcome.kernel).clone();
        let at = *self.places.entry(kernel.clone()).or_insert_with(|| {
            self.columns.push(Column::new(kernel.clone(), vec![]));
            self.columns.len() - 1
        });
        if !self.known.insert((at, outcome.scenario.clone())) {
            return Err(format!("{} on {kernel} is there twice", outcome.scenario));
        }
        self.scenarios.insert(outcome.scenario.clone());
        self.columns[at].outcomes.push(outcome);
        for (count, most, what) in [
            (self.known.len(), limits::OUTCOMES, "outcomes"),
            (self.columns.len(), limits::KERNELS, "kernels"),
            (self.scenarios.len(), limits::SCENARIOS, "scenarios"),
        ] {
            if count > most {
                return Err(format!("there are more than {most} {what}"));
            }
        }
        Ok(())
    }
}

/// Opens a regular file and nothing else: a device may have no end, and a FIFO no
/// writer.
fn open(path: &Path) -> Result<File, String> {
    let regular = |kind: FileType| if kind.is_file() { Ok(()) } else { Err(no_file(kind)) };
    regular(path.metadata().map_err(|e| e.to_string())?.file_type())?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|e| e.to_string())?;
    // The file may have been replaced meanwhile.
    regular(file.metadata().map_err(|e| e.to_string())?.file_type())?;
    Ok(file)
}

fn no_file(kind: FileType) -> String {
    let what = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    format!("it is {what}; merge takes files that `faultlab run --json` wrote")
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
