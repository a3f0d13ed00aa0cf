//! Resets: who sent one, and why.

use super::journey::Journey;
use super::{Arm, Finding, Rank, counters, flow, name};
use faultlab_net::wire::segment::Flags;

/// Resets for segments of a connection that the host does not have.
pub(super) fn resets(arm: &Arm<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = vec![];
    for reset in arm.journeys.evidence().filter(|j| j.has(Flags::RST)) {
        let Some(host) = reset.sender() else { continue };
        let kind = format!("reset of an unknown connection by {host}");
        // Only the first finding of a kind is reported.
        if !found.iter().any(|finding| finding.kind == kind) {
            found.extend(unknown_connection(arm, reset, kind));
        }
    }
    found
}

fn unknown_connection<'a>(arm: &Arm<'a>, reset: &Journey<'a>, kind: String) -> Option<Finding> {
    let (host, leg) = (reset.sender()?, reset.first());
    let cause = arm.journeys.answered_by(reset)?;
    let spoke = |j: &&Journey<'_>| !j.has(Flags::RST) && j.first().at < leg.at;
    if arm.journeys.departures(host, reset.endpoints()).any(|j| spoke(&j)) {
        return None;
    }
    // The peer that the host does talk to from that address.
    let own = |j: &&Journey<'_>| j.sender() == Some(host) && j.endpoints().0 == leg.header.src && spoke(j);
    let other = arm.journeys.all.iter().rev().find(own);
    if cause.has(Flags::SYN) && !cause.has(Flags::ACK) {
        let text =
            format!("{host} refused {}: nobody listened there", name(&cause.last().header, cause.length));
        return Some(Finding::new(Rank::Packet, leg.at, format!("refused by {host}"), text));
    }
    let untranslated = flow::untranslated(cause);
    if other.is_none() && untranslated.is_none() {
        return None;
    }
    let end = cause.last();
    let mut text = format!("{host} answered {} with a RST", name(&end.header, cause.length));
    if let Some(reason) = counters::reason(arm, host, end) {
        text.push_str(&format!(" ({reason})"));
    }
    if let Some(other) = other {
        text.push_str(&format!(": its connection is with {}", other.endpoints().1));
    }
    let because = match untranslated {
        Some(untranslated) => Some(untranslated.why(arm, &cause.identity(end))),
        None => flow::said(arm, cause),
    };
    Some(Finding { because, ..Finding::new(Rank::Packet, leg.at, kind, text) })
}
