//! The packets of an arm as a ladder diagram: hosts are columns, time runs down, and every
//! packet that crosses a link is an arrow.
//!
//! It resembles the diagrams of RFC 9293 3.5 and Wireshark's "flow graph". The two frames
//! of a packet on a link, where it left and where it arrived, are one arrow; a packet that
//! was lost or dropped ends in a cross.

mod fold;
mod label;
mod notes;
mod svg;
mod text;

use std::time::Duration;

use fold::fold;
use label::Labels;

pub use faultlab_explain::difference::Flows;
pub use faultlab_explain::hops::HopFate;
use faultlab_explain::verdicts::Verdicts;
use faultlab_net::capture::Capture;

/// The maximum number of columns. The hosts with the most packets get one.
const HOSTS: usize = 6;
/// A silence is drawn if it is longer than this.
const SILENCE: Duration = Duration::from_secs(1);

/// A drawing of the packets of an arm over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The columns: hosts and their addresses, in the order of the path.
    pub hosts: Vec<(String, String)>,
    /// The rows in order of time.
    pub rows: Vec<Row>,
    /// The number of hosts that sent or received packets but have no column.
    pub apart: usize,
    /// The number of frames that are missing from the capture. If it is not zero, no packet
    /// is called lost or dropped.
    pub lost: u64,
    /// When the first packet left that differs from the control's, as time since the
    /// network was set up; `None` if none differs, or if there is no control.
    pub differs: Option<Duration>,
    /// The number of packets with each of these fates, including folded ones.
    fates: [(HopFate, usize); 3],
}

/// A row of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A packet that crosses a link.
    Arrow(Arrow),
    /// Nothing was sent for this long.
    Silence(Duration),
    /// Packets that are not drawn.
    Folded(Folded),
}

/// Packets that are not drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    /// Their number.
    pub packets: usize,
    /// Their position.
    pub place: Place,
}

/// The position of folded rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before all rows that are drawn.
    Before,
    /// Between two rows that are drawn.
    Between,
    /// After all rows that are drawn.
    After,
}

/// A packet that crosses a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// When it left, as time since the network was set up.
    pub at: Duration,
    /// The column of the sending host; `None` if unknown.
    pub from: Option<usize>,
    /// The column of the receiving host, even if the packet never arrived; `None` if unknown.
    pub to: Option<usize>,
    /// What happened to it.
    pub fate: HopFate,
    /// Ports, flags, and sequence numbers relative to the initial ones.
    pub label: String,
    /// Notes, one per line: the probe, the addresses, what happened to the packet.
    pub notes: Vec<String>,
    /// Whether it belongs to a probe that a row of the outcome reports.
    pub reported: bool,
}

impl Row {
    /// The text of a row; for an arrow, its label.
    fn words(&self) -> String {
        match self {
            Self::Arrow(arrow) => arrow.label.clone(),
            Self::Silence(time) => format!("{} s of silence", time.as_secs()),
            Self::Folded(Folded { packets, place }) => {
                let packets = if *packets == 1 {
                    "1 more packet".to_owned()
                } else {
                    format!("{packets} more packets")
                };
                match place {
                    Place::Before => format!("{packets} before"),
                    Place::Between => packets,
                    Place::After => format!("{packets} after"),
                }
            }
        }
    }
}

impl Ladder {
    /// The ladder of a capture. A long one is folded to its beginning, its end, and the
    /// probes that the outcome reports.
    #[must_use]
    pub fn of(capture: &Capture) -> Self {
        Self::draw(capture, &Verdicts::of(capture), None)
    }

    /// The ladder of a capture, compared with the control's packets. A long one is folded
    /// around the first packet that differs.
    #[must_use]
    pub fn beside(capture: &Capture, control: &Flows) -> Self {
        let verdicts = Verdicts::of(capture);
        let differs = Flows::with(capture, &verdicts).first_difference(control);
        Self::draw(capture, &verdicts, differs)
    }

    /// `differs` is the index of the first hop that differs from the control's.
    fn draw(capture: &Capture, verdicts: &Verdicts<'_>, differs: Option<usize>) -> Self {
        let (columns, apart) = columns(capture, verdicts);
        let column = |host: Option<&str>| columns.iter().position(|name| Some(*name) == host);
        let (mut rows, mut labels, mut last) = (vec![], Labels::default(), None);
        let mut pivot = None;
        for (number, (hop, verdict)) in verdicts.hops.iter().zip(&verdicts.all).enumerate() {
            let (from, to) = (column(verdict.from), column(verdict.to));
            let silence = last.map_or(Duration::ZERO, |last| hop.at().saturating_sub(last));
            if silence > SILENCE {
                rows.push((Row::Silence(silence), None));
            }
            // A packet that is not drawn, between hosts without a column, ends a silence too.
            last = last.max(Some(hop.until()));
            if (verdict.from.is_some() && from.is_none()) || (verdict.to.is_some() && to.is_none()) {
                continue;
            }
            let is_first = pivot.is_none() && differs.is_some_and(|first| first <= number);
            if is_first {
                pivot = Some(rows.len());
            }
            let label = labels.of(&hop.packet) + if hop.first.is_some() { " again" } else { "" };
            let (mut notes, reported) = notes::probes(verdicts, number);
            if is_first {
                notes.insert(0, "the first difference from the control".to_owned());
            }
            let route = notes::Route::of(hop, verdict, notes.len());
            notes.extend(notes::fate(verdicts, number));
            let arrow = Arrow { at: hop.at(), from, to, fate: hop.fate, label, notes, reported };
            rows.push((Row::Arrow(arrow), Some(route)));
        }
        let addresses = |host: &&str| {
            let own = capture.ends.iter().filter(|end| end.host == **host).flat_map(|end| &end.addresses);
            own.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let count =
            |fate| rows.iter().filter(|(row, _)| matches!(row, Row::Arrow(a) if a.fate == fate)).count();
        Self {
            apart,
            fates: [HopFate::Lost, HopFate::Dropped, HopFate::Made].map(|fate| (fate, count(fate))),
            hosts: columns.iter().map(|host| ((*host).to_owned(), addresses(host))).collect(),
            rows: notes::with_addresses(fold(rows, pivot)),
            lost: capture.lost,
            differs: differs.map(|hop| verdicts.hops[hop].at()),
        }
    }

    /// A text alternative for the drawing, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let packets = |row: &Row| match row {
            Row::Arrow(_) => 1,
            Row::Silence(_) => 0,
            Row::Folded(folded) => folded.packets,
        };
        let all: usize = self.rows.iter().map(packets).sum();
        let names: Vec<_> = self.hosts.iter().map(|(host, _)| host.as_str()).collect();
        let mut text = format!("{all} packets between {}", names.join(", "));
        if let Some(at) = self.differs {
            text.push_str(&format!("; the first difference from the control is at {}", seconds(at)));
        }
        for (fate, count) in self.fates.iter().filter(|(_, count)| *count > 0) {
            let word = match fate {
                HopFate::Lost => "lost on the link",
                HopFate::Made => "made by the wire",
                _ => "dropped",
            };
            text.push_str(&format!("; {count} {word}"));
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

/// The hosts that get a column, in the order of the capture, and the number of hosts with
/// packets that get none.
fn columns<'a>(capture: &'a Capture, verdicts: &Verdicts<'_>) -> (Vec<&'a str>, usize) {
    let packets = |host: &str| {
        let is_end = |end: Option<&str>| end == Some(host);
        verdicts.all.iter().filter(|verdict| is_end(verdict.from) || is_end(verdict.to)).count()
    };
    let mut busy: Vec<(&str, usize)> = vec![];
    for end in &capture.ends {
        if !busy.iter().any(|(host, _)| *host == end.host) {
            busy.push((&end.host, packets(&end.host)));
        }
    }
    busy.retain(|(_, count)| *count > 0);
    let all = busy.len();
    let mut counts: Vec<_> = busy.iter().map(|(_, count)| *count).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let fewest = counts.get(HOSTS - 1).copied().unwrap_or(0);
    busy.retain(|(_, count)| *count >= fewest);
    busy.truncate(HOSTS);
    let columns: Vec<_> = busy.into_iter().map(|(host, _)| host).collect();
    let apart = all - columns.len();
    (columns, apart)
}

/// Seconds with three decimal places and the unit.
fn seconds(at: Duration) -> String {
    format!("{}.{:03} s", at.as_secs(), at.subsec_millis())
}

#[cfg(test)]
mod tests;
