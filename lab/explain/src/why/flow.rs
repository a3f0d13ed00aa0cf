//! What a host that translates and tracks made of a segment.

use std::time::Duration;

use super::journey::{Journey, Leg, Way};
use super::{Arm, seconds};
use crate::verdicts::Translation;
use faultlab_model::recording::InvalidLog;
use faultlab_net::conntrack::{Entry, Event, Tuple};
use faultlab_net::wire::segment::Identity;

/// A segment that a host did not translate as those before it.
#[derive(Debug)]
pub(super) struct Untranslated<'a> {
    /// The host.
    pub host: &'a str,
    /// From whom to whom it was, as it came to the host.
    way: Way,
    /// What those before it became.
    was: Way,
    at: Duration,
}

/// A flow that conntrack has an entry of no more.
#[derive(Debug)]
struct Forgotten {
    /// The entry as it was when it last changed.
    entry: Entry,
    /// What was left of its life when it was deleted, if anything was.
    left: Option<Duration>,
}

/// What is said of a segment that gets no entry.
const NO_ENTRY: &str = "invalid new";
/// An entry whose time is over may be reaped, and that be heard of, only when a
/// segment asks for it.
const REAPED: Duration = Duration::from_secs(1);

/// Finds the host that translated others of the same way before, and not this one.
pub(super) fn untranslated<'a>(journey: &Journey<'a>) -> Option<Untranslated<'a>> {
    journey.legs.iter().find_map(|leg| {
        let Some(Translation::Missing { was, .. }) = leg.translation else { return None };
        Some(Untranslated { host: leg.to?, way: leg.way(), was, at: leg.at })
    })
}

impl Untranslated<'_> {
    /// Why it was not translated, as far as the host's conntrack tells.
    pub(super) fn why(&self, arm: &Arm<'_>, segment: &Identity) -> String {
        let ((src, dst), host) = (self.way, self.host);
        let mut text = format!("{host} did not translate it to {} > {} as before", self.was.0, self.was.1);
        let words = words(arm, host, segment);
        if let Some(Forgotten { entry, left }) = self.forgotten(arm, words) {
            text.push_str(&match left {
                Some(left) => {
                    format!(
                        ": its conntrack had deleted the flow, with {} s left of its life",
                        left.as_secs()
                    )
                }
                None => ": its conntrack had forgotten the flow".to_owned(),
            });
            let silence = self.silence(arm);
            if let Some(silence) = silence {
                text.push_str(&format!(", which was silent for {}", seconds(silence)));
            }
            // A refresh sends no event: of a shorter life nothing is known.
            let timeout = entry.timeout.filter(|timeout| left.is_none() && silence >= Some(*timeout));
            if let (Some(state), Some(timeout)) = (entry.tcp_state, timeout) {
                text.push_str(&format!(", and an entry in {state} stayed for {} s", timeout.as_secs()));
            }
            text.push_str(&format!("; the entry of {src} > {dst} is gone"));
            text.extend(words.map(|words| format!(", and it was not picked up: {words}")));
        } else if let Some(words) = words {
            text.push_str(&format!(": to its conntrack it was INVALID: {words}"));
        }
        text
    }

    /// The flow, if conntrack had no entry of it any more when the segment came,
    /// of which it has said this.
    fn forgotten(&self, arm: &Arm<'_>, words: Option<&str>) -> Option<Forgotten> {
        // What is judged by its entry has one.
        if words.is_some_and(|words| !words.contains(NO_ENTRY)) {
            return None;
        }
        let tuple = Tuple::tcp(self.way.0, self.way.1);
        let (mut last, mut gone) = (None::<Entry>, None::<Forgotten>);
        for (at, event) in &arm.recording.host(self.host)?.events {
            let Some(entry) = event.entry().filter(|entry| entry.is_of(&tuple)) else { continue };
            let is_by = |time| {
                at.is_none_or(|at| at.saturating_sub(arm.recording.begun) <= self.at.saturating_add(time))
            };
            match event {
                // What is picked up of the flow later, and goes, is another entry.
                Event::Destroy(_) if is_by(REAPED) && gone.is_none() => {
                    let last = last.filter(|last| last.original == entry.original);
                    gone = Some(Forgotten { entry: last.unwrap_or(*entry), left: entry.timeout });
                }
                Event::New(_) | Event::Update(_) if is_by(Duration::ZERO) => {
                    last = Some(*entry);
                    // Without a time, it may have come later.
                    gone = gone.filter(|gone| at.is_none() || gone.entry.original != entry.original);
                }
                _ => {}
            }
        }
        gone
    }

    /// For how long no segment of the flow had been translated.
    fn silence(&self, arm: &Arm<'_>) -> Option<Duration> {
        let ways = [self.way, (self.was.1, self.was.0)];
        let pairs = arm.journeys.all.iter().flat_map(|journey| journey.legs.windows(2));
        let passed = pairs.filter(|pair| {
            pair[0].to == Some(self.host) && ways.contains(&pair[0].way()) && pair[1].way() != pair[0].way()
        });
        let last = passed.map(|pair| pair[0].until).filter(|until| *until < self.at).max()?;
        Some(self.at.saturating_sub(last))
    }
}

/// Whether a segment left a host as those before it did.
pub(super) fn goes_on(arm: &Arm<'_>, host: &str, log: &InvalidLog) -> bool {
    let segment = log.header.identity(log.length);
    let mut all = arm.journeys.all.iter();
    all.any(|journey| {
        let is_it = |leg: &Leg<'_>| leg.to == Some(host) && journey.identity(leg) == segment;
        let at = journey.legs.iter().position(is_it);
        at.is_some_and(|at| at + 1 < journey.legs.len()) && untranslated(journey).is_none()
    })
}

/// What the conntrack of a host said of a segment, as it came to the host.
fn words<'a>(arm: &Arm<'a>, host: &str, segment: &Identity) -> Option<&'a str> {
    let mut invalid_logs = arm.recording.host(host)?.invalid_logs.iter();
    let log = invalid_logs.find(|log| log.header.identity(log.length) == *segment)?;
    Some(&log.words)
}

/// What the conntrack of a host on its way said of a segment.
pub(super) fn said(arm: &Arm<'_>, journey: &Journey<'_>) -> Option<String> {
    journey.legs.iter().find_map(|leg| {
        let host = leg.to?;
        Some(format!("conntrack on {host} said of it: {}", words(arm, host, &journey.identity(leg))?))
    })
}
