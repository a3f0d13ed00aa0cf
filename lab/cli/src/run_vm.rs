//! `faultlab run --kernel`: scenarios on kernels in virtual machines.

use std::cell::RefCell;
use std::pin::pin;

use futures_util::stream::{self, StreamExt};

use super::Stop;
use super::files::{self, Folder};
use super::interruption::Interruption;
use super::options::Options;
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_kernels::{KernelImage, Store};
use faultlab_machine::vm::run::GuestEvent;
use faultlab_machine::vm::{Interrupted, Vm};
use faultlab_model::outcome::{Machine, Outcome, Verdict};
use faultlab_model::scenario::Clock;
use faultlab_report::matrix::Column;
use faultlab_report::progress::{Display, Parts, Progress};

/// Finds and checks the requested kernels, so that an error in any of them is reported before
/// the first one boots.
pub(super) fn ready(options: &Options) -> std::result::Result<Vec<Vm>, Stop> {
    let mut found: Vec<KernelImage> = vec![];
    for name in &options.kernels {
        found.push(Store::find(name)?);
    }
    let ready = |kernel| Vm::new(kernel, options.clock, options.seed);
    Ok(found.into_iter().map(ready).collect::<Result<_>>()?)
}

/// Runs the scenarios on every kernel, [`Options::guests`] guests in parallel, and passes each
/// column to `on_column` in the order of the kernels. After an interruption a column has the
/// outcomes so far, and the other scenarios in [`Column::not_run`].
pub(super) async fn run(
    catalogue: &Catalogue,
    machines: &[Vm],
    options: &Options,
    display: &RefCell<Display>,
    interruption: &Interruption,
    on_column: &mut dyn FnMut(Column) -> std::result::Result<(), Stop>,
) -> std::result::Result<(), Stop> {
    let column = |(number, vm)| column(catalogue, vm, number, options, display, interruption);
    let columns = machines.iter().enumerate().map(column);
    let mut columns = stream::iter(columns).buffered(options.guests);
    // Columns are held back until a kernel has booted. If none boots, the result is an error
    // and not a matrix of failures.
    let (mut held, mut why, mut one_booted) = (vec![], None, false);
    while let Some(column) = columns.next().await {
        let (column, never_booted) = column?;
        one_booted |= never_booted.is_none();
        why = why.or(never_booted);
        held.push(column);
        if one_booted {
            held.drain(..).try_for_each(&mut *on_column)?;
        }
    }
    match why {
        Some(error) if !one_booted => Err(Stop::Lab(error)),
        _ => Ok(()),
    }
}

/// The outcomes of one kernel, and the error if its first guest did not boot.
async fn column(
    catalogue: &Catalogue,
    vm: &Vm,
    number: usize,
    options: &Options,
    display: &RefCell<Display>,
    interruption: &Interruption,
) -> Result<(Column, Option<Error>)> {
    let mine = |(at, scenario): (usize, &&'static Scenario)| {
        let place = at * options.kernels.len() + number;
        options.shard.is_none_or(|shard| shard.has(place)).then_some(*scenario)
    };
    let mut left: Vec<&'static Scenario> = options.scenarios.iter().enumerate().filter_map(mine).collect();
    let id = vm.kernel().id.clone();
    let mut column = Column::new(id.clone(), vec![]);
    if left.is_empty() {
        return Ok((column, None));
    }
    display.borrow_mut().note(&Progress::Begun { name: &id, parts: Parts::Scenarios(left.len()) });
    let mut console = String::new();
    let mut never_booted = None;
    while !left.is_empty() && interruption.signal().is_none() {
        let together = share_a_guest(left.iter().map(|scenario| scenario.guest_not_shared));
        let batch: Vec<_> = left[..together].to_vec();
        let jobs = batch.iter().map(|s| options.job(s)).collect();
        let mut hear = |event: GuestEvent<'_>| {
            if let GuestEvent::Outcome(outcome) = event {
                display.borrow_mut().note(&Progress::PartEnded { of: &id, part: &outcome.scenario });
            }
        };
        let mut interrupted: Interrupted<'_> = pin!(interruption.arrived());
        let mut run = vm.run_until(catalogue, jobs, &mut hear, &mut interrupted).await?;
        run.outcomes.iter_mut().for_each(|outcome| outcome.kernel_id = Some(id.clone().into()));
        if options.console.is_some() {
            console.push_str(&run.console.text());
        }
        let done = run.outcomes.len();
        column.outcomes.extend(run.outcomes);
        left.drain(..done);
        if run.interrupted {
            break;
        }
        let Some(failure) = run.failure.filter(|_| done < together) else { continue };
        // A kernel that does not boot fails all remaining scenarios. If a guest dies later,
        // only the scenario that it ran fails, and the others run in another guest.
        let lost = if run.booted { 1 } else { left.len() };
        for scenario in left.drain(..lost) {
            display.borrow_mut().note(&Progress::PartEnded { of: &id, part: scenario.card.name });
            column.outcomes.push(failed(scenario, vm, options.clock, &failure));
        }
        if column.outcomes.len() == lost && !run.booted {
            never_booted = Some(failure);
        }
    }
    column.not_run.extend(left.iter().map(|scenario| scenario.card.name.to_owned()));
    if let Some(folder) = options.console.as_ref().filter(|_| !console.is_empty()) {
        let file = files::name(&id) + ".log";
        let written = Folder::make(folder).and_then(|folder| {
            // Not cleaned: it is a file, not a terminal.
            folder.write(&file, |out| out.write_all(console.as_bytes()))
        });
        written.map_err(|e| Error::kernel("the console", "write it", e))?;
    }
    display.borrow_mut().note(&Progress::Ended(&id));
    Ok((column, never_booted))
}

/// How many of the remaining scenarios run in the next guest. The argument says of each
/// whether it needs a guest to itself, because it may leave the kernel unusable.
fn share_a_guest(need_their_own: impl Iterator<Item = bool>) -> usize {
    let needs: Vec<_> = need_their_own.collect();
    needs.iter().position(|needs_own| *needs_own).map_or(needs.len(), |at| at.max(1))
}

fn failed(scenario: &Scenario, vm: &Vm, clock: Clock, error: &Error) -> Outcome {
    let verdict = match error {
        Error::Missing(_) => Verdict::NotApplicable,
        _ => Verdict::Failed,
    };
    let kernel = vm.kernel();
    Outcome {
        kernel_id: Some(kernel.id.clone().into()),
        ..Outcome::without_run(scenario, Machine::Vm, &kernel.release, clock, verdict, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_may_wedge_its_kernel_has_a_guest_of_its_own() {
        let guests = |mut left: &[bool]| {
            let mut sizes = vec![];
            while !left.is_empty() {
                let together = share_a_guest(left.iter().copied());
                sizes.push(together);
                left = &left[together..];
            }
            sizes
        };
        assert_eq!(guests(&[false, false, true, false, true, true]), [2, 1, 1, 1, 1]);
        assert_eq!(guests(&[true]), [1]);
        assert_eq!(guests(&[false; 3]), [3]);
    }
}
