//! How a host with NAT and conntrack handled a segment.

use std::time::Duration;

use super::journey::{Endpoints, Journey, Leg};
use super::{Arm, seconds};
use crate::verdicts::Translation;
use faultlab_model::recording::InvalidLog;
use faultlab_net::conntrack::{Entry, Event, Tuple};
use faultlab_net::wire::segment::Identity;

/// A segment that a host did not translate, although it translated earlier ones of the
/// same flow.
#[derive(Debug)]
pub(super) struct Untranslated<'a> {
    /// The host.
    pub host: &'a str,
    /// The source and destination of the segment as the host received it.
    endpoints: Endpoints,
    /// What the earlier ones were translated to.
    was: Endpoints,
    at: Duration,
}

/// A flow that no longer has a conntrack entry.
#[derive(Debug)]
struct Forgotten {
    /// The entry as it was when it last changed.
    entry: Entry,
    ended: Ended,
}

/// How a conntrack entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its timeout expired.
    Expired,
    /// It was deleted, and had this time left.
    Deleted { left: Duration },
    /// Either of these: the event does not tell which.
    Unknown,
}

impl Ended {
    /// Reads the event of the end. Since 5.11 it has the entry's state, and the time
    /// left unless that is zero (86d21fc74745, "netfilter: ctnetlink: add timeout and
    /// protoinfo to destroy events"); before, it has neither.
    fn of(entry: &Entry) -> Self {
        match (entry.timeout, entry.tcp_state) {
            (Some(left), _) => Self::Deleted { left },
            (None, Some(_)) => Self::Expired,
            (None, None) => Self::Unknown,
        }
    }
}

/// Part of conntrack's log message about a segment for which it creates no entry.
const NO_ENTRY: &str = "invalid new";
/// How much later than the segment the event of an expired entry may be: conntrack may
/// reap the entry only when the segment looks it up.
const REAPED: Duration = Duration::from_secs(1);

/// Finds the host that translated earlier segments of the same flow, and not this one.
pub(super) fn untranslated<'a>(journey: &Journey<'a>) -> Option<Untranslated<'a>> {
    journey.legs.iter().find_map(|leg| {
        let Some(Translation::Missing { was, .. }) = leg.translation else { return None };
        Some(Untranslated { host: leg.to?, endpoints: leg.endpoints(), was, at: leg.at })
    })
}

impl Untranslated<'_> {
    /// Why it was not translated, as far as the host's conntrack shows.
    pub(super) fn why(&self, arm: &Arm<'_>, segment: &Identity) -> String {
        let ((src, dst), host) = (self.endpoints, self.host);
        let mut text = format!("{host} did not translate it to {} > {} as before", self.was.0, self.was.1);
        let words = words(arm, host, segment);
        if let Some(Forgotten { entry, mut ended }) = self.forgotten(arm, words) {
            let silence = self.silence(arm);
            // After a silence as long as its timeout, it has expired.
            if ended == Ended::Unknown && entry.timeout.is_some() && silence >= entry.timeout {
                ended = Ended::Expired;
            }
            text.push_str(&match ended {
                Ended::Deleted { left } => {
                    format!(
                        ": its conntrack had deleted the flow, with {} s left of its life",
                        left.as_secs()
                    )
                }
                Ended::Expired => ": its conntrack had forgotten the flow".to_owned(),
                Ended::Unknown => ": its conntrack no longer had the flow".to_owned(),
            });
            if let Some(silence) = silence {
                text.push_str(&format!(", which was silent for {}", seconds(silence)));
            }
            // A refresh sends no event, so a timeout that was shortened since is
            // unknown.
            let timeout =
                entry.timeout.filter(|timeout| ended == Ended::Expired && silence >= Some(*timeout));
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

    /// The flow, if conntrack had no entry for it when the segment arrived. `words`
    /// is conntrack's log message about the segment.
    fn forgotten(&self, arm: &Arm<'_>, words: Option<&str>) -> Option<Forgotten> {
        // Any other message means that the segment had an entry.
        if words.is_some_and(|words| !words.contains(NO_ENTRY)) {
            return None;
        }
        let tuple = Tuple::tcp(self.endpoints.0, self.endpoints.1);
        let (mut last, mut gone) = (None::<Entry>, None::<Forgotten>);
        for (at, event) in &arm.recording.host(self.host)?.events {
            let Some(entry) = event.entry().filter(|entry| entry.is_of(&tuple)) else { continue };
            let is_by = |time| {
                at.is_none_or(|at| at.saturating_sub(arm.recording.begun) <= self.at.saturating_add(time))
            };
            match event {
                // An entry made when the flow is picked up later, and deleted again, is
                // another one.
                Event::Destroy(_) if is_by(REAPED) && gone.is_none() => {
                    let last = last.filter(|last| last.original == entry.original);
                    gone = Some(Forgotten { entry: last.unwrap_or(*entry), ended: Ended::of(entry) });
                }
                Event::New(_) | Event::Update(_) if is_by(Duration::ZERO) => {
                    last = Some(*entry);
                    // An event without a time may have come later.
                    gone = gone.filter(|gone| at.is_none() || gone.entry.original != entry.original);
                }
                _ => {}
            }
        }
        gone
    }

    /// The time from the last translated segment of the flow to this one.
    fn silence(&self, arm: &Arm<'_>) -> Option<Duration> {
        let both = [self.endpoints, (self.was.1, self.was.0)];
        let pairs = arm.journeys.all.iter().flat_map(|journey| journey.legs.windows(2));
        let passed = pairs.filter(|pair| {
            pair[0].to == Some(self.host)
                && both.contains(&pair[0].endpoints())
                && pair[1].endpoints() != pair[0].endpoints()
        });
        let last = passed.map(|pair| pair[0].until).filter(|until| *until < self.at).max()?;
        Some(self.at.saturating_sub(last))
    }
}

/// Whether a host forwarded a logged segment, and with its usual translation.
pub(super) fn goes_on(arm: &Arm<'_>, host: &str, log: &InvalidLog) -> bool {
    let segment = log.header.identity(log.length);
    let mut all = arm.journeys.all.iter();
    all.any(|journey| {
        let is_it = |leg: &Leg<'_>| leg.to == Some(host) && journey.identity(leg) == segment;
        let at = journey.legs.iter().position(is_it);
        at.is_some_and(|at| at + 1 < journey.legs.len()) && untranslated(journey).is_none()
    })
}

/// A host's conntrack log message about a segment, as the host received it.
fn words<'a>(arm: &Arm<'a>, host: &str, segment: &Identity) -> Option<&'a str> {
    let mut invalid_logs = arm.recording.host(host)?.invalid_logs.iter();
    let log = invalid_logs.find(|log| log.header.identity(log.length) == *segment)?;
    Some(&log.words)
}

/// The first such message by a host on the segment's path, as a sentence.
pub(super) fn said(arm: &Arm<'_>, journey: &Journey<'_>) -> Option<String> {
    journey.legs.iter().find_map(|leg| {
        let host = leg.to?;
        Some(format!("conntrack on {host} said of it: {}", words(arm, host, &journey.identity(leg))?))
    })
}
