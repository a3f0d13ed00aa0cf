//! What a host that translates and tracks made of a segment.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::journey::{Journey, Way};
use super::{Arm, seconds};
use crate::evidence::conntrack::{Entry, Event, Tuple};
use crate::wire::segment::Header;

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

/// Finds the host that translated others of the same way before, and not this one.
pub(super) fn untranslated<'a>(arm: &Arm<'a>, journey: &Journey<'a>) -> Option<Untranslated<'a>> {
    journey.legs.iter().enumerate().find_map(|(n, leg)| {
        let host = leg.to?;
        if journey.legs.get(n + 1).is_some_and(|next| next.way() != leg.way()) {
            return None;
        }
        let pairs = arm.journeys.all.iter().flat_map(|other| other.legs.windows(2));
        let before = pairs
            .filter(|pair| pair[0].to == Some(host) && pair[0].at < leg.at && pair[0].way() == leg.way());
        let was = before.map(|pair| pair[1].way()).rfind(|was| *was != leg.way())?;
        Some(Untranslated { host, way: leg.way(), was, at: leg.at })
    })
}

impl Untranslated<'_> {
    /// Why it was not translated, as far as the host's conntrack tells.
    pub(super) fn why(&self, arm: &Arm<'_>, header: &Header) -> String {
        let ((src, dst), host) = (self.way, self.host);
        let mut text = format!("{host} did not translate it to {} > {} as before", self.was.0, self.was.1);
        let words = words(arm, host, header);
        if let Some(entry) = self.forgotten(arm) {
            text.push_str(": its conntrack had forgotten the flow");
            if let Some(silence) = self.silence(arm) {
                text.push_str(&format!(", which was silent for {}", seconds(silence)));
            }
            if let (Some(state), Some(timeout)) = (entry.tcp_state, entry.timeout) {
                text.push_str(&format!(", and an entry in {state} stayed for {} s", timeout.as_secs()));
            }
            text.push_str(&format!("; the entry of {src} > {dst} is gone"));
            text.extend(words.map(|words| format!(", and it was not picked up: {words}")));
        } else if let Some(words) = words {
            text.push_str(&format!(": to its conntrack it was INVALID: {words}"));
        }
        text
    }

    /// The entry of the flow as it was when it last changed, if conntrack has
    /// deleted it.
    fn forgotten(&self, arm: &Arm<'_>) -> Option<Entry> {
        let end = |address: SocketAddrV4| (*address.ip(), address.port());
        let tuple = Tuple::tcp(end(self.way.0), end(self.way.1));
        let events = arm.traces.host(self.host)?.events.iter();
        let mut last = None;
        for event in events.filter(|event| event.entry().is_some_and(|entry| entry.is_of(&tuple))) {
            match event {
                Event::Destroy(entry) => return last.or(Some(*entry)),
                event => last = event.entry().copied(),
            }
        }
        None
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

/// What the conntrack of a host said of a segment, by the headers that it came with.
fn words<'a>(arm: &Arm<'a>, host: &str, header: &Header) -> Option<&'a str> {
    let same = |other: &Header| {
        (other.src, other.dst, other.seq, other.ack, other.flags)
            == (header.src, header.dst, header.seq, header.ack, header.flags)
    };
    let remarks = &arm.traces.host(host)?.remarks;
    remarks.iter().find(|remark| same(&remark.header)).map(|remark| remark.words.as_str())
}

/// What the conntrack of a host on its way said of a segment.
pub(super) fn said(arm: &Arm<'_>, journey: &Journey<'_>) -> Option<String> {
    journey.legs.iter().find_map(|leg| {
        let host = leg.to?;
        Some(format!("conntrack on {host} said of it: {}", words(arm, host, &leg.header)?))
    })
}
