//! The notes below the label of an arrow.

use std::collections::HashSet;
use std::time::Duration;

use super::{Row, seconds};
use faultlab_explain::hops::{Hop, HopFate};
use faultlab_explain::verdicts::{Verdict, Verdicts};
use faultlab_net::capture::Carried;

/// A packet that takes longer than this is noted with its time of arrival.
const LATE: Duration = Duration::from_millis(100);

/// The addresses of a packet on a link, which are noted where they are new.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    hosts: [Option<String>; 2],
    addresses: (String, String),
    /// The position among the notes.
    position: usize,
}

impl Way {
    pub(super) fn of(hop: &Hop, verdict: &Verdict<'_>, position: usize) -> Self {
        let hosts = [verdict.from, verdict.to].map(|host| host.map(str::to_owned));
        Self { hosts, addresses: hop.packet.addresses(), position }
    }
}

/// The rows, with the addresses of each packet whose addresses no row above has for
/// the same link in the same direction.
pub(super) fn with_addresses(rows: Vec<(Row, Option<Way>)>) -> Vec<Row> {
    let mut known = HashSet::new();
    let mut noted = vec![];
    for (mut row, way) in rows {
        if let (Row::Arrow(arrow), Some(Way { hosts, addresses, position })) = (&mut row, way) {
            let text = format!("{} > {}", addresses.0, addresses.1);
            if known.insert((hosts, addresses)) {
                arrow.notes.insert(position, text);
            }
        }
        noted.push(row);
    }
    noted
}

/// The probes that sent or awaited the packet of a hop, and whether a row of the
/// outcome reports one of them.
pub(super) fn probes(verdicts: &Verdicts<'_>, hop: usize) -> (Vec<String>, bool) {
    let own = || verdicts.probed.iter().filter(|mark| mark.hop == hop).map(|mark| mark.probe);
    let note = own().map(|probe| match &probe.row {
        Some(row) => format!("probe: {row}"),
        None => format!("probe: {} {}", probe.host, probe.act),
    });
    (note.collect(), own().any(|probe| probe.row.is_some()))
}

/// What happened to the packet of a hop.
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
    // The kernel's comment begins with the same words, and goes on with its reason.
    let is_in_comment =
        |fate: &String| hop.comment.as_ref().is_some_and(|comment| comment.starts_with(fate.as_str()));
    notes.extend(fate.filter(|fate| !is_in_comment(fate)));
    if hop.until().saturating_sub(hop.at()) >= LATE {
        notes.push(format!("arrives at {}", seconds(hop.until())));
    }
    notes.extend(hop.changed.clone());
    // A RST of this host itself that does not directly follow the packet that it
    // answers.
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
