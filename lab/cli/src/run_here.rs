//! `faultlab run` without `--kernel`: scenarios on the running kernel.

use std::cell::RefCell;

use futures_util::stream::{self, StreamExt};

use super::Stop;
use super::interruption::Interruption;
use super::options::Options;
use super::selection;
use faultlab_base::error::Error;
use faultlab_base::text::Line;
use faultlab_engine::scenario::Scenario;
use faultlab_machine::check::Ability;
use faultlab_machine::here::{Checked, Here};
use faultlab_model::outcome::{Machine, Outcome, Verdict};
use faultlab_model::scenario::{Clock, Environment, Need};
use faultlab_net::kernel::Kernel;
use faultlab_report::matrix::Column;
use faultlab_report::progress::{Display, Parts, Progress};

/// The heading of the running kernel's outcomes.
pub(super) const HERE: &str = "here";

/// Runs the scenarios, [`Options::jobs`] in parallel, and passes each outcome to `on_outcome`
/// in the order of the catalogue. After an interruption, scenarios that had not finished are
/// passed as [`Column::not_run`].
pub(super) async fn run(
    options: &Options,
    display: &RefCell<Display>,
    interruption: &Interruption,
    on_outcome: &mut dyn FnMut(Column) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mine = |(at, _): &(usize, &&'static Scenario)| options.shard.is_none_or(|shard| shard.has(*at));
    let scenarios = options.scenarios.iter().enumerate().filter(mine).map(|(_, scenario)| *scenario);
    let not_run = |name: &str| Column { not_run: vec![name.to_owned()], ..Column::new(HERE, vec![]) };
    display.borrow_mut().note(&Progress::Checking);
    let executable = super::executable()?;
    let checked = tokio::select! {
        () = interruption.arrived() => None,
        checked = Here::find(&executable) => Some(checked),
    };
    display.borrow_mut().note(&Progress::CheckingEnded);
    let Some(checked) = checked else {
        return scenarios.map(|scenario| not_run(scenario.card.name)).try_for_each(on_outcome);
    };
    let Checked { here, abilities } = checked?;
    if let Some(reason) = missing(&abilities, &[Need::Veth]) {
        return Err(Stop::Lab(Error::Lab(format!("nothing can run here: {reason}"))));
    }
    let kernel = Kernel::running();
    let runs = scenarios.map(|scenario| {
        let run = one(scenario, options, &here, &abilities, &kernel, display);
        let interrupted = move || {
            display.borrow_mut().note(&Progress::Ended(scenario.card.name));
            Ok(not_run(scenario.card.name))
        };
        async move {
            if interruption.signal().is_some() {
                return interrupted();
            }
            tokio::select! {
                // A finished outcome counts, even if a signal has arrived as well.
                biased;
                outcome = run => outcome.map(|outcome| Column::new(HERE, vec![outcome])),
                () = interruption.arrived() => interrupted(),
            }
        }
    });
    let mut columns = stream::iter(runs).buffered(options.jobs);
    while let Some(column) = columns.next().await {
        on_outcome(column?)?;
    }
    Ok(())
}

/// Runs a scenario if its requirements are met, and returns its outcome.
///
/// # Errors
/// Only [`Error::Exhausted`]. Any other error becomes an outcome.
async fn one(
    scenario: &'static Scenario,
    options: &Options,
    here: &Here,
    abilities: &[Ability],
    kernel: &Kernel,
    display: &RefCell<Display>,
) -> Result<Outcome, Error> {
    let name = scenario.card.name;
    let set = selection::of(scenario, &options.set);
    let env = Environment::new(scenario, kernel.clone(), Clock::Real, &set);
    let without = |verdict, reason| Outcome::without_run_in(scenario, &env, Machine::Here, verdict, reason);
    if scenario.needs.contains(&Need::ExclusiveKernel) {
        let reason = "it needs a kernel of its own; run it with --kernel".to_owned();
        return Ok(without(Verdict::NotApplicable, reason));
    }
    if let Some(reason) = missing(abilities, scenario.needs) {
        return Ok(without(Verdict::NotApplicable, reason.into()));
    }
    let arms = scenario.arms_on(&env, &options.only).len();
    display.borrow_mut().note(&Progress::Begun { name, parts: Parts::Arms(arms) });
    let mut on_arm = |arm: &str| display.borrow_mut().note(&Progress::PartEnded { of: name, part: arm });
    let result = here.run(options.job(scenario), &mut on_arm).await;
    display.borrow_mut().note(&Progress::Ended(name));
    result.or_else(|error| match error {
        Error::Exhausted(_) => Err(error),
        Error::Missing(missing) => Ok(without(Verdict::NotApplicable, missing.to_string())),
        error => Ok(without(Verdict::Failed, error.to_string())),
    })
}

/// Why one of these needs is missing; `None` if the machine has all of them.
pub(super) fn missing(abilities: &[Ability], needs: &[Need]) -> Option<Line> {
    let needed = |a: &&Ability| !a.optional && needs.iter().any(|n| n.to_string() == a.need);
    abilities.iter().filter(needed).find_map(|a| a.missing.clone())
}
