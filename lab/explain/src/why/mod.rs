//! Why an arm's outcome differs from the control's: the packet, the part of the
//! kernel that handled it, and the counter or log message that proves it.
//!
//! This module knows neither the scenario nor the planted fault. It reads the
//! recordings of the arms, reports only what they contain, and leaves out what the
//! control shows too.

mod answers;
mod counters;
mod flow;
mod hang;
mod journey;
mod reset;
mod silence;
#[cfg(test)]
mod tests;
mod timestamps;

use std::time::Duration;

use faultlab_model::recording::Recording;
use faultlab_net::wire::segment::{Flags, Header};
use journey::Journeys;

/// The maximum number of lines of evidence for a reason.
const LINES: usize = 3;

/// How much a finding explains, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A task that waits in the kernel.
    Hang,
    /// What happened to a packet.
    Packet,
    /// Keepalive probes that were not sent.
    Silence,
    /// A counter that moved.
    Counter,
    /// What the kernel reports as dropped.
    Drop,
    /// What the kernel logged.
    Words,
}

/// A possible reason.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    rank: Rank,
    /// When it happened; zero if that is not known.
    at: Duration,
    /// Its kind, regardless of ports and numbers.
    kind: String,
    text: String,
    /// A detail that another finding may report already.
    because: Option<String>,
}

impl Finding {
    fn new(rank: Rank, at: Duration, kind: String, text: String) -> Self {
        Self { rank, at, kind, text, because: None }
    }
}

/// The possible reasons for an arm's outcome.
#[derive(Debug)]
pub struct Reasons(Vec<Finding>);

impl Reasons {
    /// Reads the recording of an arm, and the counters of its control.
    #[must_use]
    pub fn of(recording: &Recording, control: Option<&Recording>) -> Self {
        let journeys = Journeys::of(&recording.capture);
        let arm = Arm { recording, control, journeys: &journeys };
        let mut findings = hang::hangs(&arm);
        // With an incomplete capture, a missing frame proves nothing.
        if !journeys.gaps {
            findings.extend(answers::strange(&arm));
            findings.extend(answers::none(&arm));
            findings.extend(answers::late(&arm));
            findings.extend(reset::resets(&arm));
            findings.extend(silence::no_keepalive(&arm));
        }
        findings.extend(counters::moved(&arm));
        // Sorting is stable: earlier findings are more telling.
        findings.sort_by_key(|finding| (finding.rank, finding.at));
        Self(findings)
    }

    /// The reason, followed by its evidence, without what the control shows too.
    #[must_use]
    pub fn beside(&self, control: Option<&Self>) -> Vec<String> {
        let shown = |kind: &str| control.is_some_and(|control| control.0.iter().any(|f| f.kind == kind));
        let mut told: Vec<(&Finding, String)> = vec![];
        for finding in self.0.iter().filter(|finding| !shown(&finding.kind)) {
            // Only one finding of a kind is reported, and no message about a packet
            // that has been reported.
            let known = |(other, text): &(&Finding, String)| match finding.rank {
                Rank::Words => other.kind == finding.kind || other.rank < Rank::Counter,
                Rank::Drop => text.contains(&finding.kind),
                _ => other.kind == finding.kind,
            };
            if told.len() > LINES || told.iter().any(known) {
                continue;
            }
            let mut text = finding.text.clone();
            let new =
                |because: &&String| !told.iter().any(|(other, _)| other.because.as_ref() == Some(because));
            if let Some(because) = finding.because.as_ref().filter(new) {
                text.push_str(&format!("; {because}"));
            }
            told.push((finding, text));
        }
        told.into_iter().map(|(_, text)| text).collect()
    }
}

/// The input: the recording of an arm, and its control.
#[derive(Debug, Clone, Copy)]
struct Arm<'a> {
    recording: &'a Recording,
    control: Option<&'a Recording>,
    journeys: &'a Journeys<'a>,
}

/// A short description of a segment: `SYN 10.0.2.2:41000 > 192.0.2.2:80, TS val 1000`.
fn name(header: &Header, length: usize) -> String {
    let kind = match header.flags {
        f if f.contains(Flags::RST) => "RST",
        f if f.contains(Flags::SYN_ACK) => "SYN-ACK",
        f if f.contains(Flags::SYN) => "SYN",
        _ if length > 0 => "data",
        f if f.contains(Flags::FIN) => "FIN",
        _ => "ACK",
    };
    let mut text = format!("{kind} {} > {}, seq {}", header.src, header.dst, header.seq);
    if let (true, Some(stamps)) = (header.flags.contains(Flags::SYN), header.timestamps) {
        text.push_str(&format!(", TS val {}", stamps.tsval));
    }
    if length > 0 {
        text.push_str(&format!(", {length} bytes"));
    }
    text
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.0} s", time.as_secs_f64())
    }
}
