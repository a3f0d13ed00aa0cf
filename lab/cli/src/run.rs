//! `faultlab run`: runs scenarios on the running kernel or on kernels in virtual
//! machines, and prints the results.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::options::{Format, Options};
use super::shard::Part;
use super::{Stop, files, ladders, options, pcap, report, run_here, run_vm};
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::outcome::{Outcome, Verdict};
use faultlab_report::html::{ByArm, Drawings};
use faultlab_report::matrix::{self, Column};
use faultlab_report::progress::Display;
use faultlab_report::{Style, junit, ktap, table};

/// Runs what was requested, unless a signal arrives first.
pub(super) fn run(catalogue: &Catalogue, raw: options::Run, style: Style) -> Result<ExitCode, Stop> {
    let bisecting = raw.bisect.is_some();
    let run = || checked_and_run(catalogue, raw, style);
    if bisecting { for_bisect(run) } else { run() }
}

/// Runs for `git bisect run`, which would take 101, the status of a panic, for a
/// bad kernel.
fn for_bisect(run: impl FnOnce() -> Result<ExitCode, Stop>) -> Result<ExitCode, Stop> {
    let done = catch_unwind(AssertUnwindSafe(run));
    let done = done.unwrap_or_else(|_| Err(Stop::CannotTell("the lab panicked".to_owned())));
    done.map_err(Stop::for_bisect)
}

fn checked_and_run(catalogue: &Catalogue, raw: options::Run, style: Style) -> Result<ExitCode, Stop> {
    let options = raw.options(catalogue).map_err(Stop::Usage)?;
    terminal::is_open()?;
    super::on_runtime(async {
        tokio::select! {
            // A run that is always ready must not delay a signal.
            biased;
            // Dropping the run kills its workers and guests, and everything they
            // made.
            stop = stopped() => Err(stop),
            done = run_all(catalogue, &options, style) => done,
        }
    })
}

pub(super) async fn stopped() -> Stop {
    let wait = |kind: SignalKind, name: Signal| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
                name
            }
            Err(_) => std::future::pending().await,
        }
    };
    let signal = tokio::select! {
        name = wait(SignalKind::interrupt(), Signal::SIGINT) => name,
        name = wait(SignalKind::terminate(), Signal::SIGTERM) => name,
        name = wait(SignalKind::hangup(), Signal::SIGHUP) => name,
    };
    Stop::Interrupted(signal)
}

async fn run_all(catalogue: &Catalogue, options: &Options, style: Style) -> Result<ExitCode, Stop> {
    let display = RefCell::new(Display::new(io::stderr().is_terminal()));
    let mut columns: Vec<Column> = vec![];
    let mut drawings = Drawings::new();
    let part = options.part();
    let mut tell = |column: Column| {
        let mut column = cleaned(column);
        if let Some(folder) = &options.pcap {
            column.outcomes.iter().try_for_each(|outcome| pcap::write(outcome, folder))?;
        }
        // Frames take much memory, their drawings little.
        let drawn: Vec<_> = column.outcomes.iter_mut().map(ladders::take).collect();
        let text = told(catalogue, options, part.as_ref(), &column.outcomes, &drawn, style);
        let names = column.outcomes.iter().map(|o| (column.kernel.clone(), o.scenario.clone()));
        drawings.extend(names.zip(drawn));
        print(&display, &text)?;
        match columns.iter_mut().find(|c| c.kernel == column.kernel) {
            Some(known) => known.outcomes.extend(column.outcomes),
            None => columns.push(column),
        }
        Ok(())
    };
    if options.kernels.is_empty() {
        run_here::run(options, &display, &mut tell).await?;
    } else {
        let machines = run_vm::ready(options)?;
        run_vm::run(catalogue, &machines, options, &display, &mut tell).await?;
    }
    let outcomes: Vec<&Outcome> = columns.iter().flat_map(|c| &c.outcomes).collect();
    let tally = Tally::of(&outcomes);
    match options.format {
        Format::Text => {
            if options.kernels.len() > 1 {
                print(&display, &matrix::matrix(&columns, style))?;
                print(&display, "\n")?;
            }
            print(&display, &(tally.sentence() + "\n"))?;
        }
        Format::Ktap => print(&display, &ktap::ktap(&columns))?,
        Format::Json => {
            // A shard without outcomes still reports which shard it is.
            if let Some(part) = part.as_ref().filter(|_| outcomes.is_empty()) {
                let line = text::json(&Line { outcome: None, shard: Some(part) });
                print(&display, &(line + "\n"))?;
            }
        }
    }
    if let Some(file) = &options.junit {
        let report = junit::junit(&columns)?;
        files::write(file, |out| out.write_all(report.as_bytes()))?;
    }
    if let Some(folder) = &options.report {
        report::write(catalogue, options, &columns, &drawings, folder)?;
    }
    Ok(match options.bisect {
        Some(bad) => ExitCode::from(bad.status(&outcomes)),
        None => ExitCode::from(u8::from(tally.failed(options.require_all))),
    })
}

/// The column, safe to print. Outcomes that were read are clean already. But the
/// lab's error about a failed guest quotes the guest, and a kernel's name may come
/// from the command line.
pub(super) fn cleaned(mut column: Column) -> Column {
    text::clean_cell(&mut column.kernel);
    column.outcomes.iter_mut().for_each(Outcome::clean);
    column
}

/// A line of JSON: an outcome, and the shard that it belongs to.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    outcome: Option<&'a Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<&'a Part>,
}

/// Prints the outcomes as they arrive.
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

fn print(display: &RefCell<Display>, text: &str) -> io::Result<()> {
    let mut written = Ok(());
    display.borrow().print(|| {
        written = terminal::print(text);
    });
    written
}

/// The number of outcomes by verdict.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: usize,
    reproduced: usize,
    immune: usize,
    not_applicable: usize,
    failed: usize,
    unexpected: usize,
    /// Those as expected that no reviewed snapshot was compared with.
    without_reference: usize,
}

impl Tally {
    pub(super) fn of(outcomes: &[&Outcome]) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.all += 1;
            match outcome.verdict {
                Verdict::Reproduced => tally.reproduced += 1,
                Verdict::Immune => tally.immune += 1,
                Verdict::NotApplicable => tally.not_applicable += 1,
                Verdict::Failed => tally.failed += 1,
            }
            tally.unexpected += usize::from(!outcome.expected);
            tally.without_reference += usize::from(outcome.expected && outcome.without_reference);
        }
        tally
    }

    /// Whether the exit status is 1.
    pub(super) fn failed(&self, require_all: bool) -> bool {
        self.unexpected > 0 || (require_all && self.not_applicable > 0)
    }

    pub(super) fn sentence(&self) -> String {
        let counts = [
            (self.reproduced, "reproduced"),
            (self.immune, "immune"),
            (self.not_applicable, "not applicable"),
            (self.failed, "failed"),
        ];
        let parts: Vec<_> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let outcomes = if self.all == 1 { "outcome" } else { "outcomes" };
        let expected = match (self.unexpected, self.without_reference) {
            (0, 0) => "all as expected".to_owned(),
            (0, n) if n == self.all => "no reference for these values".to_owned(),
            (0, n) => format!("{n} without a reference, the others as expected"),
            (n, _) => format!("{n} NOT as expected"),
        };
        format!("{} {outcomes}: {}; {expected}", self.all, parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_names_outcomes_without_a_reference() {
        let outcome = |without_reference| Outcome {
            without_reference,
            ..faultlab_model::made::outcome("6.1", Verdict::Reproduced, "reset", true)
        };
        let [compared, other] = [outcome(false), outcome(true)];
        let sentence = |outcomes: &[&Outcome]| {
            assert!(!Tally::of(outcomes).failed(false));
            Tally::of(outcomes).sentence()
        };
        assert_eq!(sentence(&[&compared]), "1 outcome: 1 reproduced; all as expected");
        assert_eq!(sentence(&[&other]), "1 outcome: 1 reproduced; no reference for these values");
        assert_eq!(
            sentence(&[&compared, &other]),
            "2 outcomes: 2 reproduced; 1 without a reference, the others as expected"
        );
    }

    #[test]
    fn a_panic_tells_a_bisection_nothing() {
        let done = for_bisect(|| panic!("as a bug would"));
        assert!(matches!(done, Err(Stop::CannotTell(_))), "{done:?}");
    }
}
