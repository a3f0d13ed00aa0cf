//! Checks the table that a guest reports: whatever the lab knows or can derive
//! itself is not taken from the guest.

use std::time::Duration;

use super::excerpt::short;
use crate::job::Job;
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::perform::{Snapshots, judge_outcome};
use faultlab_engine::scenario::Scenario;
use faultlab_model::outcome::{ArmOutcome, Machine, Map, Outcome, Seconds, Verdict};
use faultlab_model::scenario::{Arm, ArmKind, Clock, Environment};
use faultlab_net::capture::Capture;

/// The maximum number of each part of an outcome. The catalogue's own outcomes need
/// a tenth.
const ROWS: usize = 200;
const LINES: usize = 10_000;
const FRAMES: usize = 30_000;
const ENDS: usize = 1_000;
/// The maximum size in bytes of a name, of a cell, and of a line.
const NAME: usize = 200;
const CELL: usize = 1_000;
const LINE: usize = 10_000;
/// The maximum number of characters of a reason.
const REASON: usize = 10_000;
/// The longest duration that a guest may report.
const LONG: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A scenario that a guest was asked to run.
#[derive(Debug)]
pub(super) struct Asked {
    scenario: &'static Scenario,
    settings: Map<String>,
    /// The arms that it may play, in table order.
    arms: Vec<Arm>,
    /// The arms that have not been reported as ended.
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
            settings: Map(Environment::settings_of(scenario, clock, set).into_iter().collect()),
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

/// The outcome as the lab judges it: only the cells, and what explains them, are
/// taken from the guest.
///
/// # Errors
/// Why it does not answer the question, a clause.
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
    lines("the log", &outcome.log)?;
    let virtual_time = match (outcome.seconds.virtual_time, clock) {
        (None, Clock::Real) => None,
        (Some(seconds), Clock::Virtual) if (0.0..=LONG.as_secs_f64()).contains(&seconds) => Some(seconds),
        _ => return Err("it took no time that can be".to_owned()),
    };
    let wire = outcome.seconds.wire.filter(|seconds| (0.0..=LONG.as_secs_f64()).contains(seconds));
    let mut judged_here = Outcome {
        era: outcome.era,
        expected: false,
        reason: None,
        settings: outcome.settings,
        arms: arms(outcome.arms, asked)?,
        log: outcome.log,
        seconds: Seconds { wall: 0.0, virtual_time, wire },
        ..Outcome::without_run(scenario, Machine::Vm, release, clock, Verdict::Failed, String::new())
    };
    match (era, judged_here.arms.is_empty(), outcome.verdict) {
        (Some(era), false, _) => {
            judge_outcome(&mut judged_here, scenario, era, asked.without_cause, snapshots);
        }
        // Nothing was played, and only the guest knows why.
        (_, true, verdict @ (Verdict::NotApplicable | Verdict::Failed)) => {
            let reason = outcome.reason.ok_or("it has neither arms nor a reason")?;
            judged_here.verdict = verdict;
            judged_here.reason = Some(short(&reason, REASON));
            judged_here.expected = verdict == Verdict::NotApplicable;
        }
        (None, false, _) => return Err("it has arms and no era".to_owned()),
        (_, true, verdict) => return Err(format!("it is {verdict} without an arm")),
    }
    Ok(judged_here)
}

/// The arms of the table, all of which the lab must know, in the lab's order.
fn arms(reported: Vec<ArmOutcome>, asked: &Asked) -> Result<Vec<ArmOutcome>, String> {
    let mut known = asked.arms.iter();
    let mut arms = vec![];
    for arm in reported {
        let Some(meant) = known.find(|known| known.name == arm.name) else {
            return Err(format!("its arm {:?} was not asked for, or comes twice", short(&arm.name, NAME)));
        };
        check(&arm, asked.captures).map_err(|why| format!("its arm {}: {why}", meant.name))?;
        arms.push(ArmOutcome { kind: meant.kind, change: meant.change.to_owned(), symptom: None, ..arm });
    }
    Ok(arms)
}

/// Checks that an arm is within bounds.
fn check(arm: &ArmOutcome, captures: bool) -> Result<(), String> {
    most("rows", arm.observations.0.len() + arm.unobserved.0.len(), ROWS)?;
    for (row, cell) in arm.observations.0.iter().chain(&arm.unobserved.0) {
        most("bytes in the name of a row", row.len(), NAME)?;
        most("bytes in a cell", cell.len(), CELL)?;
    }
    for map in [&arm.observations, &arm.unobserved] {
        let mut rows: Vec<_> = map.keys().collect();
        rows.sort_unstable();
        if let Some((row, _)) = rows.iter().zip(rows.iter().skip(1)).find(|(one, next)| one == next) {
            return Err(format!("it has the row {row:?} twice"));
        }
    }
    lines("the explanation", &arm.because)?;
    lines("the reasons", &arm.why)?;
    most("hosts with evidence", arm.evidence.0.len(), ENDS)?;
    for (host, evidence) in &arm.evidence.0 {
        most("bytes in the name of a host", host.len(), NAME)?;
        lines("the evidence", evidence)?;
    }
    lines("what was not captured", arm.capture_gap.as_slice())?;
    match &arm.capture {
        Some(_) if !captures => Err("it has a capture, which nobody asked for".to_owned()),
        Some(capture) => check_capture(capture),
        None => Ok(()),
    }
}

fn check_capture(capture: &Capture) -> Result<(), String> {
    most("interfaces", capture.ends.len(), ENDS)?;
    most("frames", capture.frames.len(), FRAMES)?;
    most("events of conntrack", capture.tracked.len(), LINES)?;
    most("probes", capture.probes.len(), LINES)?;
    if capture.frames.iter().any(|frame| frame.end >= capture.ends.len()) {
        return Err("a frame was captured on no interface".to_owned());
    }
    let times = capture.frames.iter().map(|frame| frame.at);
    let times = times.chain(capture.tracked.iter().map(|tracked| tracked.at));
    let mut times = times.chain(capture.probes.iter().map(|probe| probe.at)).chain([capture.until]);
    if times.any(|at| at > LONG) {
        return Err("its capture took longer than a century".to_owned());
    }
    let names = capture.ends.iter().flat_map(|end| [&end.host, &end.interface]);
    let names = names.chain(capture.tracked.iter().map(|tracked| &tracked.host));
    for name in names.chain(capture.probes.iter().map(|probe| &probe.host)) {
        most("bytes in the name of a host", name.len(), NAME)?;
    }
    let said = capture.frames.iter().filter_map(|frame| frame.comment.as_ref());
    let said = said.chain(capture.tracked.iter().flat_map(|tracked| [&tracked.flow, &tracked.state]));
    let said = said.chain(capture.probes.iter().flat_map(|probe| probe.met.iter().chain(&probe.row)));
    for text in said {
        most("bytes in a line of the capture", text.len(), LINE)?;
    }
    Ok(())
}

/// Checks that these lines are within bounds.
fn lines(of: &str, lines: &[String]) -> Result<(), String> {
    most(&format!("lines in {of}"), lines.len(), LINES)?;
    let longest = lines.iter().map(String::len).max().unwrap_or(0);
    most(&format!("bytes in a line of {of}"), longest, LINE)
}

fn most(of: &str, number: usize, most: usize) -> Result<(), String> {
    if number > most { Err(format!("there are {number} {of}, more than {most}")) } else { Ok(()) }
}
