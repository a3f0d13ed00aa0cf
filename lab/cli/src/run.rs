//! `faultlab run`: runs scenarios on the running kernel or on kernels in virtual
//! machines, and prints the results.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use serde::Serialize;

use super::interruption::{Interruption, Signals};
use super::options::{Format, Options};
use super::shard::Part;
use super::{Stop, files, ladders, options, pcap, report, run_here, run_vm};
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::outcome::Outcome;
use faultlab_report::html::{ByArm, Drawings};
use faultlab_report::matrix::{self, Column};
use faultlab_report::progress::Display;
use faultlab_report::tally::Tally;
use faultlab_report::{Style, junit, ktap, table};

/// Runs the scenarios, until they end or a signal arrives, and prints the results.
pub(super) fn run(catalogue: &Catalogue, raw: options::Run, style: Style) -> Result<ExitCode, Stop> {
    let bisecting = raw.bisect.is_some();
    let run = || checked_and_run(catalogue, raw, style);
    if bisecting { for_bisect(run) } else { run() }
}

/// Runs for `git bisect run`, which would take exit status 101, that of a panic, for a bad
/// kernel.
fn for_bisect(run: impl FnOnce() -> Result<ExitCode, Stop>) -> Result<ExitCode, Stop> {
    let done = catch_unwind(AssertUnwindSafe(run));
    let done = done.unwrap_or_else(|_| Err(Stop::CannotTell("the lab panicked".to_owned())));
    done.map_err(Stop::for_bisect)
}

fn checked_and_run(catalogue: &Catalogue, raw: options::Run, style: Style) -> Result<ExitCode, Stop> {
    let options = raw.options(catalogue).map_err(Stop::Usage)?;
    terminal::is_open()?;
    let interruption = Interruption::listen()?;
    let done = super::on_runtime(run_all(catalogue, &options, style, &interruption));
    match (interruption.signal(), done) {
        (None, done) => done,
        (Some(signal), Err(Stop::Output(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
            terminal::say(&super::unwritten(&error));
            Err(Stop::Interrupted(signal))
        }
        (Some(signal), _) => Err(Stop::Interrupted(signal)),
    }
}

/// Handles signals from the first poll on, and waits for the first one.
pub(super) async fn stopped() -> Stop {
    match Signals::listen() {
        Ok(mut signals) => Stop::Interrupted(signals.next().await),
        Err(stop) => stop,
    }
}

async fn run_all(
    catalogue: &Catalogue,
    options: &Options,
    style: Style,
    interruption: &Interruption,
) -> Result<ExitCode, Stop> {
    let display = RefCell::new(Display::new(io::stderr().is_terminal()));
    let mut columns: Vec<Column> = vec![];
    let mut drawings = Drawings::new();
    let part = options.part();
    let mut tell = |mut column: Column| {
        if let Some(folder) = &options.pcap {
            column.outcomes.iter().try_for_each(|outcome| pcap::write(outcome, options.frames, folder))?;
        }
        // Drawings take little memory; the frames are freed.
        let drawn: Vec<_> = column.outcomes.iter_mut().map(ladders::take).collect();
        let text = told(catalogue, options, part.as_ref(), &column.outcomes, &drawn, style);
        let names = column.outcomes.iter().map(|o| (column.kernel.clone(), o.scenario.clone()));
        drawings.extend(names.zip(drawn));
        print(&display, options.format, &text)?;
        match columns.iter_mut().find(|c| c.kernel == column.kernel) {
            Some(known) => {
                known.outcomes.extend(column.outcomes);
                known.not_run.extend(column.not_run);
            }
            None => columns.push(column),
        }
        Ok(())
    };
    if options.kernels.is_empty() {
        run_here::run(options, &display, interruption, &mut tell).await?;
    } else {
        let machines = run_vm::ready(options)?;
        run_vm::run(catalogue, &machines, options, &display, interruption, &mut tell).await?;
    }
    let outcomes: Vec<&Outcome> = columns.iter().flat_map(|c| &c.outcomes).collect();
    let tally = Tally::of(outcomes.iter().copied());
    match options.format {
        // The run was interrupted, or this shard is empty.
        Format::Text if outcomes.is_empty() => {}
        Format::Text => {
            if options.kernels.len() > 1 {
                print(&display, options.format, &(matrix::matrix(&columns, style) + "\n"))?;
            }
            print(&display, options.format, &(tally.sentence() + "\n"))?;
        }
        Format::Ktap => print(&display, options.format, &ktap::ktap(&columns))?,
        Format::Json => {
            // A shard without outcomes still reports which shard it is.
            let none = outcomes.is_empty() && interruption.signal().is_none();
            if let Some(part) = part.as_ref().filter(|_| none) {
                let line = text::json(&Line { outcome: None, shard: Some(part) });
                print(&display, options.format, &(line + "\n"))?;
            }
        }
    }
    if let Some(sentence) = not_run(&columns) {
        display.borrow().print(|| terminal::say(&sentence));
    }
    if let Some(file) = &options.junit {
        let report = junit::junit(&columns)?;
        files::write(file, |out| out.write_all(report.as_bytes()))?;
    }
    if let Some(folder) = options.report.as_ref().filter(|_| !outcomes.is_empty()) {
        report::write(catalogue, options, &columns, &drawings, folder)?;
    }
    Ok(match options.bisect {
        Some(bad) => ExitCode::from(bad.status(&outcomes)),
        None => ExitCode::from(u8::from(tally.failed(options.require_all))),
    })
}

/// The sentence about the scenarios that an interrupted run did not complete; `None` if there
/// are none.
fn not_run(columns: &[Column]) -> Option<String> {
    /// The maximum number of scenarios that are named.
    const NAMED: usize = 8;
    let named = |column: &Column, scenario: &str| match column.kernel.as_str() {
        run_here::HERE => scenario.to_owned(),
        kernel => format!("{scenario} on {kernel}"),
    };
    let missing: Vec<_> =
        columns.iter().flat_map(|column| column.not_run.iter().map(|name| named(column, name))).collect();
    let all = missing.len() + columns.iter().map(|column| column.outcomes.len()).sum::<usize>();
    let more = missing.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let first = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let sentence =
        || format!("interrupted: {} of {all} were not run to the end: {first}{more}", missing.len());
    (!missing.is_empty()).then(sentence)
}

/// A line of JSON: an outcome and its shard, or the shard alone if it has no outcomes.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    outcome: Option<&'a Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<&'a Part>,
}

/// The text of finished outcomes in the requested format, for output while the run goes on.
/// KTAP has none: it is printed at the end.
pub(super) fn told(
    catalogue: &Catalogue,
    options: &Options,
    part: Option<&Part>,
    outcomes: &[Outcome],
    drawn: &[ByArm],
    style: Style,
) -> String {
    let mut told = String::new();
    for (outcome, drawn) in outcomes.iter().zip(drawn) {
        match options.format {
            Format::Json => {
                told.push_str(&text::json(&Line { outcome: Some(outcome), shard: part }));
                told.push('\n');
            }
            Format::Text if options.kernels.len() < 2 => {
                if let Ok(scenario) = catalogue.find(&outcome.scenario) {
                    told.push_str(&table::outcome(scenario, outcome, style));
                    told.push('\n');
                }
            }
            Format::Text => {
                let why = table::why(outcome, style);
                if !why.is_empty() {
                    let kernel = outcome.kernel_id.as_deref().unwrap_or("here");
                    told.push_str(&style.bold(&format!("{}, {kernel}", outcome.scenario)));
                    told.push_str(&format!("\n{why}\n"));
                }
            }
            Format::Ktap => {}
        }
        if options.ladder {
            told.push_str(&ladders::text(outcome, drawn, options, style));
        }
    }
    told
}

fn print(display: &RefCell<Display>, format: Format, text: &str) -> io::Result<()> {
    let mut written = Ok(());
    display.borrow().print(|| {
        written = match format {
            Format::Text => terminal::print(text),
            Format::Json | Format::Ktap => terminal::print_data(text),
        };
    });
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_a_bisection_nothing() {
        let done = for_bisect(|| panic!("as a bug would"));
        assert!(matches!(done, Err(Stop::CannotTell(_))), "{done:?}");
    }
}
