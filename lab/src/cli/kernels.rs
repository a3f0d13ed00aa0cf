//! `faultlab run --kernel`: scenarios on kernels of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use futures_util::stream::{self, StreamExt};

use super::Stop;
use super::options::Options;
use crate::error::{Error, Result};
use crate::kernel::Kernel as Running;
use crate::machine::vm::run::Heard;
use crate::machine::vm::{Kernel, Store, Vm};
use crate::outcome::{Outcome, Verdict};
use crate::report::matrix::Column;
use crate::report::progress::{Display, Progress};
use crate::scenario::{Clock, Ground, Scenario};

/// Makes the kernels ready that were asked for: whatever is wrong with one is
/// told before any is booted.
pub(super) fn ready(options: &Options) -> std::result::Result<Vec<Vm>, Stop> {
    let mut found: Vec<Kernel> = vec![];
    let store = Store::open()?;
    for name in &options.kernels {
        found.push(store.find(name)?);
    }
    let ready = |kernel| Vm::new(kernel, options.clock, options.seed);
    Ok(found.into_iter().map(ready).collect::<Result<_>>()?)
}

/// Runs the scenarios on every kernel, as many guests side by side as asked
/// for, and hands each column on in the order of the kernels.
pub(super) async fn run(
    machines: &[Vm],
    options: &Options,
    display: &RefCell<Display>,
    on_column: &mut dyn FnMut(Column) -> std::result::Result<(), Stop>,
) -> std::result::Result<(), Stop> {
    let columns = machines.iter().enumerate().map(|(number, vm)| column(vm, number, options, display));
    let mut columns = stream::iter(columns).buffered(options.guests);
    while let Some(column) = columns.next().await {
        on_column(column?)?;
    }
    Ok(())
}

async fn column(vm: &Vm, number: usize, options: &Options, display: &RefCell<Display>) -> Result<Column> {
    let mine = |(at, scenario): (usize, &&'static Scenario)| {
        let place = at * options.kernels.len() + number;
        options.shard.is_none_or(|shard| shard.has(place)).then_some(*scenario)
    };
    let mut left: Vec<&'static Scenario> = options.scenarios.iter().enumerate().filter_map(mine).collect();
    let id = vm.kernel().id.clone();
    let mut column = Column { kernel: id.clone(), outcomes: vec![] };
    if left.is_empty() {
        return Ok(column);
    }
    display.borrow_mut().note(&Progress::Begun { scenario: &id, arms: left.len() });
    let mut console = String::new();
    while !left.is_empty() {
        // A scenario that may wedge its kernel has a guest of its own.
        let together = left.iter().position(|s| s.wedges).map_or(left.len(), |at| at.max(1));
        let batch: Vec<_> = left[..together].to_vec();
        let tasks = batch.iter().map(|s| options.task(s)).collect();
        let mut hear = |heard: Heard<'_>| {
            if let Heard::Outcome(outcome) = heard {
                display.borrow_mut().note(&Progress::Arm { scenario: &id, arm: &outcome.scenario });
            }
        };
        let mut visit = vm.visit(tasks, &mut hear).await?;
        visit.outcomes.iter_mut().for_each(|outcome| outcome.kernel_id = Some(id.clone()));
        console.push_str(&visit.console.text());
        let done = visit.outcomes.len();
        column.outcomes.extend(visit.outcomes);
        left.drain(..done);
        // The scenario that the guest died of has failed; the others go on.
        if let (Some(failure), Some(scenario)) = (visit.failure, batch.get(done)) {
            column.outcomes.push(failed(scenario, vm, options.clock, &failure));
            left.remove(0);
        }
    }
    if let Some(folder) = &options.console {
        // An id may be a path.
        let file = folder.join(format!("{}.log", id.replace('/', "_")));
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, console));
        written.map_err(|e| Error::kernel(file.display().to_string(), "write the console", e))?;
    }
    display.borrow_mut().note(&Progress::Ended(&id));
    Ok(column)
}

fn failed(scenario: &Scenario, vm: &Vm, clock: Clock, error: &Error) -> Outcome {
    let ground = Ground::new(scenario, Running::running(), clock, &BTreeMap::new());
    let verdict = match error {
        Error::Missing(_) => Verdict::NotApplicable,
        _ => Verdict::Failed,
    };
    let mut outcome = Outcome::without_run(scenario, &ground, verdict, error.to_string());
    outcome.kernel.clone_from(&vm.kernel().release);
    outcome.kernel_id = Some(vm.kernel().id.clone());
    "vm".clone_into(&mut outcome.machine);
    outcome.era = None;
    outcome
}
