//! The frames of an arm as a ladder: hosts are columns, time runs down, and
//! every packet that crosses a link is an arrow.
//!
//! Like the time-sequence diagrams of RFC 9293 3.5, and the "flow graph" of
//! Wireshark; but a packet that crosses a link is one arrow, not two frames, and a
//! packet that never arrived is marked with a cross.

mod label;
mod svg;
mod text;

use std::time::Duration;

use label::Labels;

pub use faultlab_explain::hops::HopFate;
use faultlab_explain::verdicts::Verdicts;
use faultlab_net::capture::{Capture, Carried};

/// How many columns fit on a page; the least busy hosts are left out.
const HOSTS: usize = 6;
/// How many rows are drawn at the start and the end of a long ladder.
const HEAD: usize = 23;
const TAIL: usize = 17;
/// How many rows are drawn from each probe that the outcome reports, wherever it
/// is, and for how many probes.
const AFTER: usize = 6;
const PROBES: usize = 3;
/// The shortest silence that is shown.
const SILENCE: Duration = Duration::from_secs(1);
/// A packet that takes longer than this is labelled with its time of arrival.
const LATE: Duration = Duration::from_millis(100);

/// A drawing of the packets of an arm over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The columns: hosts and their addresses, in the order of the path.
    pub hosts: Vec<(String, String)>,
    /// In order of time.
    pub rows: Vec<Row>,
    /// The number of hosts that took part but have no column.
    pub apart: usize,
    /// The number of frames that did not fit into the capture. If it is not zero,
    /// no packet can be said to be lost or dropped.
    pub lost: u64,
}

/// A row of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A packet that crosses a link.
    Arrow(Arrow),
    /// Nothing was sent for this long.
    Silence(Duration),
    /// This many packets are not drawn.
    Folded(usize),
}

/// A packet that crosses a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// When it left, since the network was set up.
    pub at: Duration,
    /// The sender's column; `None` if unknown.
    pub from: Option<usize>,
    /// The receiver's column, even if the packet never arrived.
    pub to: Option<usize>,
    /// What became of it.
    pub fate: HopFate,
    /// Ports, flags, relative numbers.
    pub label: String,
    /// Notes, one per line: new addresses, a fate, a comment.
    pub notes: Vec<String>,
    /// Whether it is a probe's packet that a row of the outcome reports.
    pub told: bool,
}

impl Ladder {
    /// The ladder of a capture.
    #[must_use]
    pub fn of(capture: &Capture) -> Self {
        let Verdicts { hops, all: verdicts, probed: marks } = Verdicts::of(capture);
        let sides: Vec<_> = verdicts.iter().map(|verdict| (verdict.from, verdict.to)).collect();
        let mut busy: Vec<(&str, usize)> = vec![];
        for end in capture.ends.iter().filter(|end| busy_with(&sides, &end.host) > 0) {
            if !busy.iter().any(|(host, _)| *host == end.host) {
                busy.push((&end.host, busy_with(&sides, &end.host)));
            }
        }
        let mut ranks: Vec<_> = busy.iter().map(|(_, count)| *count).collect();
        ranks.sort_unstable_by(|a, b| b.cmp(a));
        let fewest = ranks.get(HOSTS - 1).copied().unwrap_or(0);
        let all = busy.len();
        busy.retain(|(_, count)| *count >= fewest);
        busy.truncate(HOSTS);
        let column = |host: Option<&str>| busy.iter().position(|(name, _)| Some(*name) == host);

        let (mut rows, mut labels, mut last) = (vec![], Labels::default(), None);
        for (number, (hop, (from, to))) in hops.iter().zip(&sides).enumerate() {
            let (from_column, to_column) = (column(*from), column(*to));
            let silence = last.map_or(Duration::ZERO, |last| hop.at().saturating_sub(last));
            if silence > SILENCE {
                rows.push(Row::Silence(silence));
            }
            last = last.max(Some(hop.until()));
            // Packets of hosts without a column count too.
            if (from.is_some() && from_column.is_none()) || (to.is_some() && to_column.is_none()) {
                continue;
            }
            let (mut label, addresses) = labels.of(&hop.packet, from.unwrap_or(""), to.unwrap_or(""));
            if hop.first.is_some() {
                label.push_str(" again");
            }
            let ours = || marks.iter().filter(|mark| mark.hop == number).map(|mark| mark.probe);
            let words = ours().map(|probe| match &probe.row {
                Some(row) => format!("probe: {row}"),
                None => format!("probe: {} {}", probe.host, probe.act),
            });
            let mut notes: Vec<String> = words.chain(addresses).collect();
            let fate = match hop.fate {
                HopFate::Arrived => None,
                HopFate::UnderWay => Some("the arm ends".to_owned()),
                HopFate::Lost if hop.carried == Some(Carried::Held) => Some("held by the wire".to_owned()),
                HopFate::Lost => Some("lost on the wire".to_owned()),
                HopFate::Dropped => Some(format!("dropped by {}", to.unwrap_or("?"))),
                HopFate::Made => Some("made by the wire".to_owned()),
            };
            // The comment from the kernel says it better.
            let told =
                |fate: &String| hop.comment.as_ref().is_some_and(|words| words.starts_with(fate.as_str()));
            notes.extend(fate.filter(|fate| !told(fate)));
            if hop.until().saturating_sub(hop.at()) >= LATE {
                notes.push(format!("arrives at {}", seconds(hop.until())));
            }
            notes.extend(hop.changed.clone());
            // A RST that this host sent, but not immediately after the packet that
            // it answers.
            if hop.before.is_none()
                && let Some(answered) = verdicts[number].reset.and_then(|reset| reset.answers)
                && let answered = hops[answered].until()
                && hop.at() > answered + LATE
            {
                notes.push(format!("answers what arrived at {}", seconds(answered)));
            }
            notes.extend(hop.comment.as_ref().map(ToString::to_string));
            rows.push(Row::Arrow(Arrow {
                at: hop.at(),
                from: from_column,
                to: to_column,
                fate: hop.fate,
                label,
                notes,
                told: ours().any(|probe| probe.row.is_some()),
            }));
        }
        let addresses = |host: &str| {
            let own = capture.ends.iter().filter(|end| end.host == host).flat_map(|end| &end.addresses);
            own.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let hosts: Vec<_> = busy.iter().map(|(host, _)| ((*host).to_owned(), addresses(host))).collect();
        Self { apart: all - hosts.len(), hosts, rows: folded(rows), lost: capture.lost }
    }

    /// A text alternative for the drawing, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let arrows =
            || self.rows.iter().filter_map(|row| if let Row::Arrow(a) = row { Some(a) } else { None });
        let folded: usize = self.rows.iter().map(|r| if let Row::Folded(n) = r { *n } else { 0 }).sum();
        let count = |fate: HopFate| arrows().filter(|a| a.fate == fate).count();
        let names: Vec<_> = self.hosts.iter().map(|(host, _)| host.as_str()).collect();
        let mut text = format!("{} packets between {}", arrows().count() + folded, names.join(", "));
        for (fate, word) in [
            (HopFate::Lost, "lost on the wire"),
            (HopFate::Dropped, "dropped"),
            (HopFate::Made, "made by the wire"),
        ] {
            if count(fate) > 0 {
                text.push_str(&format!("; {} {word}", count(fate)));
            }
        }
        if self.lost > 0 {
            text.push_str(&format!("; {} more frames were not kept", self.lost));
        }
        if self.apart > 0 {
            text.push_str(&format!("; {} more hosts are not drawn", self.apart));
        }
        text
    }
}

fn busy_with(between: &[(Option<&str>, Option<&str>)], host: &str) -> usize {
    between.iter().filter(|(from, to)| *from == Some(host) || *to == Some(host)).count()
}

/// The first and the last rows of a long ladder, and the probes in between.
fn folded(rows: Vec<Row>) -> Vec<Row> {
    let count = rows.len();
    if count <= HEAD + TAIL + 1 {
        return rows;
    }
    let is_told = |row: &Row| matches!(row, Row::Arrow(arrow) if arrow.told);
    let told = rows.iter().enumerate().skip(HEAD).filter(|(_, row)| is_told(row)).map(|(at, _)| at);
    let told: Vec<_> = told.take(PROBES).collect();
    let drawn = |at: usize| {
        at < HEAD || at >= count - TAIL || told.iter().any(|probe| (*probe..probe + AFTER).contains(&at))
    };
    let mut kept = vec![];
    for (at, row) in rows.into_iter().enumerate() {
        match kept.last_mut() {
            _ if drawn(at) => kept.push(row),
            Some(Row::Folded(hidden)) => *hidden += usize::from(matches!(row, Row::Arrow(_))),
            _ => kept.push(Row::Folded(usize::from(matches!(row, Row::Arrow(_))))),
        }
    }
    kept
}

/// Seconds, with milliseconds, for people to read.
fn seconds(at: Duration) -> String {
    format!("{}.{:03} s", at.as_secs(), at.subsec_millis())
}

#[cfg(test)]
mod tests;
