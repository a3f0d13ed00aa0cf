//! Checks the outcome that a guest reports. What the host knows or can derive, such as
//! names, kinds and the verdict, is not taken from the guest.

use super::excerpt::short;
use crate::job::Job;
use faultlab_base::error::{Error, Result};
use faultlab_base::text::Cell;
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::perform::{Snapshots, judge_outcome};
use faultlab_engine::scenario::Scenario;
use faultlab_model::outcome::{ArmOutcome, Machine, Map, Outcome, Seconds, Verdict};
use faultlab_model::scenario::{Arm, ArmKind, Clock, Environment};

/// The maximum number of characters of a name that an error quotes.
const NAME: usize = 200;
const REASON: usize = 10_000;

/// A scenario that a guest was asked to run.
#[derive(Debug)]
pub(super) struct Asked {
    scenario: &'static Scenario,
    settings: Map<Cell>,
    /// The arms that it may play, in table order.
    arms: Vec<Arm>,
    /// The names of the arms that have not been reported as ended.
    playing: Vec<&'static str>,
    without_cause: bool,
    /// Whether its outcome includes the frames.
    pub captures: bool,
}

impl Asked {
    /// The scenario of a job.
    ///
    /// # Errors
    /// If it does not run a scenario of the catalogue.
    pub fn of(catalogue: &Catalogue, job: &Job, clock: Clock) -> Result<Self> {
        let Job::Run { scenario, only, set, without_cause, capturing } = job else {
            return Err(Error::Lab("a guest that answers runs scenarios".to_owned()));
        };
        let scenario = catalogue.find(scenario).map_err(Error::Lab)?;
        // Only the guest knows which arms are meaningful on its kernel.
        let essential = |arm: &Arm| matches!(arm.kind, ArmKind::Control | ArmKind::Fault);
        let wanted = |arm: &Arm| only.is_empty() || only.iter().any(|name| name == arm.name);
        let may = |arm: &Arm| essential(arm) || (wanted(arm) && !without_cause);
        let arms: Vec<_> = scenario.arms().into_iter().filter(may).collect();
        Ok(Self {
            scenario,
            settings: Environment::settings_of(scenario, clock, set).into_iter().collect(),
            playing: arms.iter().map(|arm| arm.name).collect(),
            arms,
            without_cause: *without_cause,
            captures: capturing.is_some_and(|capturing| capturing.captures),
        })
    }

    /// The scenario's name.
    pub fn name(&self) -> &'static str {
        self.scenario.card.name
    }

    /// Records that an arm has ended; `None` if it is not being played.
    pub fn end(&mut self, arm: &str) -> Option<&'static str> {
        let at = self.playing.iter().position(|name| *name == arm)?;
        Some(self.playing.remove(at))
    }
}

/// The outcome, judged on the host. Taken from the guest are the arms' cells and
/// captures, the log, the era and the time.
///
/// # Errors
/// Why it is not an outcome of the job, as a clause.
pub(super) fn checked(
    outcome: Outcome,
    asked: &Asked,
    release: &str,
    clock: Clock,
    snapshots: Snapshots,
) -> Result<Outcome, String> {
    let scenario = asked.scenario;
    let era = match &outcome.era {
        None => None,
        Some(name) => {
            let known = scenario.eras.iter().find(|era| era.name == name);
            Some(known.ok_or_else(|| format!("it has no era {:?}", short(name, NAME)))?)
        }
    };
    if outcome.settings != asked.settings {
        return Err("it has other settings".to_owned());
    }
    if outcome.symptom != scenario.symptom.row {
        return Err(format!("its symptom is not {:?}", short(&outcome.symptom, NAME)));
    }
    let virtual_time = match (outcome.seconds.virtual_time, clock) {
        (None, Clock::Real) => None,
        (Some(seconds), Clock::Virtual) => Some(seconds),
        _ => return Err("it has another clock".to_owned()),
    };
    let mut judged_here = Outcome {
        era: outcome.era,
        expected: false,
        reason: None,
        settings: outcome.settings,
        arms: arms(outcome.arms, asked)?,
        log: outcome.log,
        seconds: Seconds { wall: 0.0, virtual_time, wire: outcome.seconds.wire },
        ..Outcome::without_run(scenario, Machine::Vm, release, clock, Verdict::Failed, String::new())
    };
    match (era, judged_here.arms.is_empty(), outcome.verdict) {
        (Some(era), false, _) => {
            judge_outcome(&mut judged_here, scenario, era, asked.without_cause, snapshots);
        }
        // No arm was played; the guest has the reason.
        (_, true, verdict @ (Verdict::NotApplicable | Verdict::Failed)) => {
            let reason = outcome.reason.ok_or("it has neither arms nor a reason")?;
            judged_here.verdict = verdict;
            judged_here.reason = Some(short(&reason, REASON).into());
            judged_here.expected = verdict == Verdict::NotApplicable;
        }
        (None, false, _) => return Err("it has arms and no era".to_owned()),
        (_, true, verdict) => return Err(format!("it is {verdict} without an arm")),
    }
    Ok(judged_here)
}

/// The reported arms, which must be among those that were asked for, and in their order.
fn arms(reported: Vec<ArmOutcome>, asked: &Asked) -> Result<Vec<ArmOutcome>, String> {
    let mut known = asked.arms.iter();
    let mut arms = vec![];
    for arm in reported {
        let Some(meant) = known.find(|known| known.name == arm.name) else {
            return Err(format!("its arm {:?} was not asked for, or comes twice", short(&arm.name, NAME)));
        };
        if arm.capture.is_some() && !asked.captures {
            return Err(format!("its arm {} has a capture, which nobody asked for", meant.name));
        }
        arms.push(ArmOutcome { kind: meant.kind, change: meant.change.into(), symptom: None, ..arm });
    }
    Ok(arms)
}
