//! The notes below the label of an arrow.

use std::collections::HashSet;
use std::time::Duration;

use super::{Row, seconds};
use faultlab_explain::hops::{Hop, HopFate};
use faultlab_explain::verdicts::{Verdict, Verdicts};
use faultlab_net::capture::Carried;

/// The transit time from which on the arrival of a packet is noted, and the delay from which
/// on the segment that a RST answers is.
const LATE: Duration = Duration::from_millis(100);

/// The hosts and the addresses of a packet on a link. The addresses become a note where they
/// are drawn for the first time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    hosts: [Option<String>; 2],
    addresses: (String, String),
    /// The index at which the note is inserted.
    position: usize,
}

impl Route {
    pub(super) fn of(hop: &Hop, verdict: &Verdict<'_>, position: usize) -> Self {
        let hosts = [verdict.from, verdict.to].map(|host| host.map(str::to_owned));
        Self { hosts, addresses: hop.packet.addresses(), position }
    }
}

/// Adds a note with the addresses to each packet, unless a row above already has them for
/// the same link and direction.
pub(super) fn with_addresses(rows: Vec<(Row, Option<Route>)>) -> Vec<Row> {
    let mut known = HashSet::new();
    let mut noted = vec![];
    for (mut row, route) in rows {
        if let (Row::Arrow(arrow), Some(Route { hosts, addresses, position })) = (&mut row, route) {
            let text = format!("{} > {}", addresses.0, addresses.1);
            if known.insert((hosts, addresses)) {
                arrow.notes.insert(position, text);
            }
        }
        noted.push(row);
    }
    noted
}

/// Notes about the probes that sent the packet of a hop or waited for it, and whether a row
/// of the outcome reports one of them.
pub(super) fn probes(verdicts: &Verdicts<'_>, hop: usize) -> (Vec<String>, bool) {
    let own = || verdicts.probed.iter().filter(|mark| mark.hop == hop).map(|mark| mark.probe);
    let note = own().map(|probe| match &probe.row {
        Some(row) => format!("probe: {row}"),
        None => format!("probe: {} {}", probe.host, probe.act),
    });
    (note.collect(), own().any(|probe| probe.row.is_some()))
}

/// Notes about what happened to the packet of a hop.
pub(super) fn fate(verdicts: &Verdicts<'_>, number: usize) -> Vec<String> {
    let (hop, verdict) = (&verdicts.hops[number], &verdicts.all[number]);
    let mut notes = vec![];
    let fate = match hop.fate {
        HopFate::Arrived => None,
        HopFate::UnderWay => Some("the arm ends".to_owned()),
        HopFate::Lost if hop.carried == Some(Carried::Held) => Some("held by the wire".to_owned()),
        HopFate::Lost => Some("lost on the link".to_owned()),
        HopFate::Dropped => Some(format!("dropped by {}", verdict.to.unwrap_or("?"))),
        HopFate::Made => Some("made by the wire".to_owned()),
    };
    // A comment about a drop begins with the same text, followed by the kernel's reason.
    let is_in_comment =
        |fate: &String| hop.comment.as_ref().is_some_and(|comment| comment.starts_with(fate.as_str()));
    notes.extend(fate.filter(|fate| !is_in_comment(fate)));
    if hop.until().saturating_sub(hop.at()) >= LATE {
        notes.push(format!("arrives at {}", seconds(hop.until())));
    }
    notes.extend(hop.changed.clone());
    // A RST that this host generated more than LATE after the segment that it answers.
    if hop.before.is_none()
        && let Some(answered) = verdict.reset.and_then(|reset| reset.answers)
        && let answered = verdicts.hops[answered].until()
        && hop.at() > answered + LATE
    {
        notes.push(format!("answers what arrived at {}", seconds(answered)));
    }
    notes.extend(hop.comment.as_ref().map(ToString::to_string));
    notes
}
