//! Checks the reports of a guest that runs scenarios.
//!
//! A guest is not trusted. Only the expected reports are accepted: that its init runs,
//! then for each job, in order, the arms that have ended and one outcome; or that it
//! cannot go on. Any other report is an error, and ends the guest.

use std::collections::VecDeque;

use super::excerpt::short;
use super::table::{self, Asked};
use crate::job::{Job, Report};
use crate::protocol::REPORT;
use crate::protocol::frame::{BODY_MAX, Frame};
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::perform::Snapshots;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::Clock;

/// The maximum size of a report, except for outcomes with captures. An outcome
/// without captures takes some 40 kB.
pub(super) const SMALL: usize = 1 << 20;
/// The maximum size of all outcomes of a guest.
const ALL_MAX: usize = 4 * BODY_MAX;
/// The maximum number of characters of a name from a guest that an error quotes.
const QUOTED: usize = 60;
/// The maximum number of characters of an error message from a guest.
const SENTENCE: usize = 4096;

/// A valid report of a guest.
#[derive(Debug)]
pub enum Answer {
    /// Its init is running.
    Booted,
    /// An arm of the current job has ended.
    Arm(&'static str),
    /// The current job has ended.
    Outcome(Box<Outcome>),
    /// It cannot go on, for this reason.
    GaveUp(Error),
}

/// The reports that are expected of a guest.
#[derive(Debug)]
pub struct Answers {
    asked: VecDeque<Asked>,
    release: String,
    clock: Clock,
    snapshots: Snapshots,
    booted: bool,
    gave_up: bool,
    bytes: usize,
}

impl Answers {
    /// Expects the outcomes of these jobs, from a guest with a kernel of this release.
    ///
    /// # Errors
    /// If a job does not run a scenario of the catalogue.
    pub fn new(catalogue: &Catalogue, jobs: &[Job], release: &str, clock: Clock) -> Result<Self> {
        let asked = jobs.iter().map(|job| Asked::of(catalogue, job, clock)).collect::<Result<_>>()?;
        Ok(Self {
            asked,
            release: release.to_owned(),
            clock,
            snapshots: catalogue.snapshots,
            booted: false,
            gave_up: false,
            bytes: 0,
        })
    }

    /// Takes the guest's next report.
    ///
    /// # Errors
    /// What is wrong with it, as a clause with "it" for the guest.
    pub fn take(&mut self, frame: &Frame) -> Result<Answer> {
        let captures = self.asked.front().is_some_and(|asked| asked.captures);
        let report = read(frame, if captures { BODY_MAX } else { SMALL })?;
        let what = name(&report);
        if self.gave_up {
            return refused(format!("it reported {what} after it had given up"));
        }
        let Some(next) = self.asked.front_mut() else {
            return match report {
                Report::Booted { .. } if !self.booted => {
                    self.booted = true;
                    Ok(Answer::Booted)
                }
                _ => refused(format!("it reported {what} after its last answer")),
            };
        };
        match report {
            Report::Missing { what, advice } => {
                self.gave_up = true;
                Ok(Answer::GaveUp(missing(&what, &advice)))
            }
            Report::Failed(sentence) | Report::Exhausted(sentence) => {
                self.gave_up = true;
                Ok(Answer::GaveUp(failed(&sentence)))
            }
            Report::Booted { .. } if self.booted => refused("it reported twice that it has booted"),
            Report::Booted { .. } => {
                self.booted = true;
                Ok(Answer::Booted)
            }
            _ if !self.booted => refused(format!("it reported {what} before it had booted")),
            Report::ArmEnded(arm) => match next.end(&arm) {
                Some(arm) => Ok(Answer::Arm(arm)),
                None => refused(format!("it reported {what}, which {} does not wait for", next.name())),
            },
            Report::Outcome(outcome) if outcome.scenario == next.name() => {
                self.bytes += frame.body.len();
                if self.bytes > ALL_MAX {
                    return refused(format!("its outcomes are longer than {} MiB", ALL_MAX >> 20));
                }
                let checked = table::checked(*outcome, next, &self.release, self.clock, self.snapshots);
                let outcome = checked.map_err(|why| {
                    Error::Lab(format!("its outcome of {} is not believed: {why}", next.name()))
                })?;
                self.asked.pop_front();
                Ok(Answer::Outcome(Box::new(outcome)))
            }
            Report::Outcome(_)
            | Report::Abilities(_)
            | Report::ShellBegins
            | Report::Left(_)
            | Report::MayTake(_)
            | Report::Continued => refused(format!("it reported {what}, and was asked for {}", next.name())),
        }
    }
}

/// The error for something that a guest reports as missing.
pub(super) fn missing(what: &str, advice: &str) -> Error {
    Error::missing(short(what, SENTENCE), short(advice, SENTENCE))
}

/// The error for a guest that reports a failure.
pub(super) fn failed(sentence: &str) -> Error {
    Error::Lab(short(sentence, SENTENCE))
}

fn refused<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::Lab(why.into()))
}

/// Decodes a frame of at most `most` bytes.
///
/// # Errors
/// Why it is not a report, as a clause with "it" for the guest.
pub(super) fn read(frame: &Frame, most: usize) -> Result<Report> {
    if frame.kind != REPORT {
        return refused(format!("it sent a frame of unknown kind {}", frame.kind));
    }
    if frame.body.len() > most {
        return refused(format!("it sent a report of {} bytes, more than {most}", frame.body.len()));
    }
    serde_json::from_slice(&frame.body)
        .map_err(|e| Error::Lab(format!("it sent what is no report: {}", short(&e.to_string(), 2 * QUOTED))))
}

/// What a report reports, for an error message.
pub(super) fn name(report: &Report) -> String {
    match report {
        Report::Booted { .. } => "that it has booted".to_owned(),
        Report::ArmEnded(arm) => format!("the end of the arm {:?}", short(arm, QUOTED)),
        Report::ShellBegins => "that its shell begins".to_owned(),
        Report::Abilities(_) => "what it can do".to_owned(),
        Report::Outcome(outcome) => format!("an outcome of {:?}", short(&outcome.scenario, QUOTED)),
        Report::Left(status) => format!("the end of a shell with status {status}"),
        Report::Missing { what, .. } => format!("that {:?} is missing", short(what, QUOTED)),
        Report::Failed(why) | Report::Exhausted(why) => format!("the failure {:?}", short(why, QUOTED)),
        Report::MayTake(_) => "how long it may take".to_owned(),
        Report::Continued => "that it was stopped and goes on".to_owned(),
    }
}
