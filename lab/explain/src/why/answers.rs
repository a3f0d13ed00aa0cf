//! Segments that got no answer, an unexpected one, or a late one.

use std::collections::HashMap;
use std::time::Duration;

use super::journey::Journey;
use super::{Arm, Finding, Rank, counters, flow, name, seconds, timestamps};
use crate::hops::HopFate;
use faultlab_net::wire::segment::{Flags, Header};

/// How long after the last attempt a segment still counts as its answer. A FIN this
/// close to the end of the arm is not expected to be answered.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Any other segment this close to the end of the arm is not expected to be answered,
/// except a SYN.
const ENDING: Duration = Duration::from_secs(2);
/// How long a socket must stay open after its request to have waited for the answer.
const WAITED: Duration = Duration::from_millis(500);

/// SYNs, and segments that were retransmitted, that got no answer.
pub(super) fn none(arm: &Arm<'_>) -> Vec<Finding> {
    let journeys = arm.journeys;
    let mut groups: Vec<Vec<&Journey<'_>>> = vec![];
    let mut by_number: HashMap<u32, Vec<usize>> = HashMap::new();
    for one in journeys.evidence().filter(|j| j.sender().is_some() && !j.has(Flags::RST)) {
        let key = |j: &Journey<'_>| {
            let Header { ack, flags, .. } = j.first().header;
            (j.endpoints(), ack, flags, j.length)
        };
        let known = by_number.entry(one.first().header.seq).or_default();
        let same = |&&n: &&usize| groups[n][0].sender() == one.sender() && key(groups[n][0]) == key(one);
        if let Some(&n) = known.iter().find(same) {
            groups[n].push(one);
        } else {
            known.push(groups.len());
            groups.push(vec![one]);
        }
    }
    let mut found: Vec<Finding> = vec![];
    for group in groups {
        let (host, syn) = (group[0].sender().unwrap_or_default(), group[0].first().header.flags.opens());
        let kind = format!("no answer to {} of {host}", if syn { "SYN" } else { "segment" });
        // Only the first finding of a kind is reported.
        if !found.iter().any(|finding| finding.kind == kind) && is_unanswered(arm, &group) {
            found.push(unanswered(arm, &group, kind));
        }
    }
    found
}

fn is_unanswered<'a>(arm: &Arm<'a>, group: &[&Journey<'a>]) -> bool {
    let (first, syn) = (group[0], group[0].first().header.flags.opens());
    let at = first.first().at;
    let ending = if first.has(Flags::FIN) { AFTERMATH } else { ENDING };
    let closing = !syn && at + ending >= arm.journeys.decided;
    if closing || group.iter().any(|j| j.is_under_way()) || (!syn && group.len() < 2) {
        return false;
    }
    let host = first.sender().unwrap_or_default();
    let last = group[group.len() - 1].last().until + AFTERMATH;
    let answers = |answer: &Journey<'_>| {
        (at..=last).contains(&answer.last().until)
            && (!syn || answer.has(Flags::RST) || answer.has(Flags::SYN))
    };
    !arm.journeys.arrivals(host, first.answer_endpoints()).any(answers)
}

fn unanswered<'a>(arm: &Arm<'a>, group: &[&Journey<'a>], kind: String) -> Finding {
    let (first, last) = (group[0], group[group.len() - 1]);
    let leg = first.first();
    let mut text = name(&leg.header, first.length);
    if group.len() > 1 {
        let time = last.first().at.saturating_sub(leg.at);
        text.push_str(&format!(", sent {} times in {},", group.len(), seconds(time)));
    }
    text.push_str(" got no answer: ");
    // What went wrong is where the answer ended, if there was one.
    let answer = lost_answer(arm, first);
    if let (Some(answer), Some(by)) = (answer, first.ended_at()) {
        let header = &answer.first().header;
        text.push_str(&format!("{by} answered with {}, but ", name(header, answer.length)));
    }
    let ended = answer.unwrap_or(first);
    let end = ended.last();
    let other = end.to.unwrap_or("?");
    text.push_str(&match end.fate {
        HopFate::Dropped => format!("{other} took it and did not pass it on"),
        HopFate::Lost => format!("it left {} and was lost on its way to {other}", end.from.unwrap_or("?")),
        _ if (end.header.src, end.header.dst) == ended.endpoints() => format!("it ended at {other}"),
        _ => format!("it ended at {other}, as {} > {}", end.header.src, end.header.dst),
    });
    let mut evidence: Vec<String> = vec![];
    if end.fate == HopFate::Lost {
        let counted = counters::of_wire(arm, [end.from.unwrap_or_default(), other]);
        let counted: Vec<_> = counted.iter().map(|(name, by)| format!("{name} +{by}")).collect();
        if !counted.is_empty() {
            evidence.push(format!("the wire counted {}, as a kernel would", counted.join(", ")));
        }
    } else {
        let counted: Vec<_> = counters::of(arm, other).iter().map(counters::Moved::text).collect();
        if !counted.is_empty() {
            evidence.push(format!("{other} counted {}", counted.join(", ")));
        }
    }
    evidence.extend(timestamps::rejected(arm, first));
    let because = match flow::untranslated(ended) {
        Some(untranslated) => Some(untranslated.why(arm, &ended.identity(end))),
        None => flow::said(arm, ended),
    };
    if end.fate != HopFate::Lost {
        evidence.extend(counters::reason(arm, other, end));
        evidence.extend(counters::dropped(arm, other));
    }
    for one in evidence {
        text.push_str(&format!("; {one}"));
    }
    Finding { because, ..Finding::new(Rank::Packet, leg.at, kind, text) }
}

/// The answer to a segment that got none: where it arrived, the host sent a segment that
/// acknowledges it, and that one did not reach the first sender.
fn lost_answer<'a>(arm: &Arm<'a>, segment: &Journey<'a>) -> Option<&'a Journey<'a>> {
    let end = segment.last();
    let host = segment.ended_at().filter(|_| end.fate == HopFate::Arrived)?;
    let Header { src, dst, seq, flags, .. } = end.header;
    let counts = u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
    let next = seq.wrapping_add(u32::try_from(segment.length).ok()?).wrapping_add(counts);
    let answers = |answer: &&Journey<'_>| {
        let header = &answer.first().header;
        answer.first().at >= end.until
            && !answer.is_under_way()
            && answer.ended_at() != segment.sender()
            && header.flags.contains(Flags::ACK)
            && header.ack.wrapping_sub(next).cast_signed() >= 0
            && (!flags.opens() || answer.has(Flags::RST) || answer.has(Flags::SYN))
    };
    arm.journeys.departures(host, (dst, src)).find(answers)
}

/// SYNs answered with an ACK: the other end still has the connection.
pub(super) fn strange(arm: &Arm<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = vec![];
    for syn in arm.journeys.evidence().filter(|j| j.first().header.flags.opens()) {
        let (leg, Some(host)) = (syn.first(), syn.sender()) else { continue };
        let kind = format!("ACK for a SYN of {host}");
        if found.iter().any(|finding| finding.kind == kind) {
            continue;
        }
        let first = arm.journeys.arrivals(host, syn.answer_endpoints()).find(|j| j.last().until >= leg.at);
        let Some(answer) = first.filter(|answer| answer.first().header.flags == Flags::ACK) else { continue };
        let by = answer.sender().unwrap_or("the wire");
        let theirs = &answer.first().header;
        let mut text = format!(
            "{} was answered with an ACK by {by} (seq {}, ack {}): {by} still has a connection with {}",
            name(&leg.header, syn.length),
            theirs.seq,
            theirs.ack,
            theirs.dst,
        );
        if let Some(rejected) = timestamps::rejected(arm, syn) {
            text.push_str(&format!("; {rejected}"));
        }
        let counted: Vec<_> = counters::of(arm, by).iter().map(counters::Moved::text).collect();
        if !counted.is_empty() {
            text.push_str(&format!("; {by} counted {}", counted.join(", ")));
        }
        if let Some(reason) = counters::reason(arm, by, syn.last()) {
            text.push_str(&format!("; {reason}"));
        }
        found.push(Finding::new(Rank::Packet, leg.at, kind, text));
    }
    found
}

/// Answers that arrived after the requesting socket was closed, and caused a RST.
pub(super) fn late(arm: &Arm<'_>) -> Vec<Finding> {
    let mut found: Vec<(&str, Finding, usize)> = vec![];
    for reset in arm.journeys.evidence().filter(|j| j.has(Flags::RST)) {
        let Some(host) = reset.sender() else { continue };
        let before = |j: &&Journey<'_>| j.first().at <= reset.first().at;
        let sent = || arm.journeys.departures(host, reset.endpoints());
        let close = sent().filter(before).find(|j| j.has(Flags::FIN));
        let request = sent().rfind(|j| j.length > 0 && close.is_some_and(|c| j.first().at <= c.first().at));
        let (Some(close), Some(request)) = (close, request) else { continue };
        let asked = request.first().at;
        let closed = close.first().at.saturating_sub(asked);
        let answer = arm.journeys.answered_by(reset).filter(|answer| answer.length > 0);
        let Some(answer) = answer.filter(|a| a.last().until > close.first().at && closed >= WAITED) else {
            continue;
        };
        if let Some(known) = found.iter_mut().find(|known| known.0 == host) {
            known.2 += 1;
            continue;
        }
        let text = format!(
            "{host} asked {} and closed after {}; the answer, {}, came {} after the question and met a RST",
            reset.endpoints().1,
            seconds(closed),
            name(&answer.last().header, answer.length),
            seconds(answer.last().until.saturating_sub(asked)),
        );
        let kind = format!("late answer to {host}");
        found.push((host, Finding::new(Rank::Packet, asked, kind, text), 1));
    }
    let told = |(_, mut finding, times): (&str, Finding, usize)| {
        if times > 1 {
            finding.text.push_str(&format!("; {times} such answers"));
        }
        finding
    };
    found.into_iter().map(told).collect()
}
