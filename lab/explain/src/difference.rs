//! The first packet in which an arm differs from its control.
//!
//! Arms are compared connection by connection, because the connections of an arm are
//! interleaved differently in every run. Ports, timestamps and initial sequence numbers
//! are not compared, nor are the ACKs without data that arrived: their number depends
//! on timers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::hops::{Hop, HopFate, Payload};
use crate::verdicts::Verdicts;
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::{Flags, Header};

/// How long before the other arm's teardown a packet must come for its absence to count.
const APART: Duration = Duration::from_secs(1);

/// What was sent in an arm before its teardown, by connection: a value to compare with
/// another arm's.
#[derive(Debug, Clone)]
pub struct Flows {
    /// The connections between two hosts in one direction, in the order in which they
    /// began.
    between: HashMap<Between, Vec<Vec<Step>>>,
    /// When the teardown began.
    decided: Duration,
    /// Whether the capture is incomplete: then a missing packet proves nothing.
    gaps: bool,
}

/// A link in one direction, and the addresses there. The port is the lower one, the
/// service's; the other one differs from connection to connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Between {
    hosts: [Option<String>; 2],
    addresses: [IpAddr; 2],
    port: u16,
}

/// A packet of a flow.
#[derive(Debug, Clone)]
struct Step {
    /// Its position among the hops.
    hop: usize,
    at: Duration,
    what: What,
}

/// The part of a packet that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct What {
    content: Content,
    fate: HopFate,
    again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// The flags without ACK and PSH, the sequence number after the flow's first, and
    /// the length.
    Segment(u8, u32, usize),
    Datagram(u16),
    Other(String),
}

impl Flows {
    /// The flows of a capture.
    #[must_use]
    pub fn of(capture: &Capture) -> Self {
        Self::with(capture, &Verdicts::of(capture))
    }

    /// The flows of a capture whose verdicts are known.
    #[must_use]
    pub fn with(capture: &Capture, verdicts: &Verdicts<'_>) -> Self {
        let decided = capture.decided();
        let mut flows: HashMap<Between, Vec<Vec<Step>>> = HashMap::new();
        // The current flow between two endpoints, and its first sequence number.
        let mut current: HashMap<(Between, [SocketAddr; 2]), (usize, u32)> = HashMap::new();
        for (number, (hop, verdict)) in verdicts.hops.iter().zip(&verdicts.all).enumerate() {
            if hop.at() > decided || hop.fate == HopFate::UnderWay || is_quiet(hop) {
                continue;
            }
            let (src, dst) = hop.packet.endpoints();
            let between = Between {
                hosts: [verdict.from, verdict.to].map(|host| host.map(str::to_owned)),
                addresses: [src.ip(), dst.ip()],
                port: src.port().min(dst.port()),
            };
            let header = if let Payload::Tcp(header, _) = &hop.packet.what { Some(header) } else { None };
            let seq = header.map_or(0, |header| header.seq);
            let of = flows.entry(between.clone()).or_default();
            let known = current.entry((between, [src, dst])).or_insert_with(|| {
                of.push(vec![]);
                (of.len() - 1, seq)
            });
            // The same ports for another connection.
            if hop.first.is_none() && header.is_some_and(begins) && !of[known.0].is_empty() {
                of.push(vec![]);
                *known = (of.len() - 1, seq);
            }
            let what = What { content: content(hop, known.1), fate: hop.fate, again: hop.first.is_some() };
            of[known.0].push(Step { hop: number, at: hop.at(), what });
        }
        Self { between: flows, decided, gaps: capture.lost > 0 }
    }

    /// The index, among this arm's hops, of the first packet that differs from the
    /// control's. If this arm only lacks packets at the end of a connection, this is the
    /// index of the last packet before the gap. `None` if nothing differs, or if
    /// a capture is incomplete.
    #[must_use]
    pub fn first_difference(&self, control: &Self) -> Option<usize> {
        if self.gaps || control.gaps {
            return None;
        }
        let first =
            |steps: Vec<&Step>| steps.into_iter().min_by_key(|step| (step.at, step.hop)).map(|s| s.hop);
        let pairs = || self.between.iter().map(|(between, flows)| (flows, control.between.get(between)));
        let other = pairs().flat_map(|(flows, control_flows)| {
            let control_flows = control_flows.map_or(&[][..], Vec::as_slice);
            // The control may have ended before it opened such a connection.
            let is_new = |step: &&Step| control_flows.is_empty() || step.at + APART <= control.decided;
            let more = flows.iter().skip(control_flows.len()).filter_map(|flow| flow.first());
            flows.iter().zip(control_flows).filter_map(|(a, b)| other(a, b)).chain(more.filter(is_new))
        });
        let other = first(other.collect());
        other.or_else(|| {
            let missing = pairs().flat_map(|(flows, control_flows)| {
                let shorter = |(a, b): (&'_ Vec<Step>, &Vec<Step>)| b.get(a.len()).map(|step| step.at);
                let is_due = |at: Duration| at + APART <= self.decided;
                let pairs = flows.iter().zip(control_flows.map_or(&[][..], Vec::as_slice));
                pairs.filter(move |(a, b)| shorter((a, b)).is_some_and(is_due)).filter_map(|(a, _)| a.last())
            });
            first(missing.collect())
        })
    }
}

/// The first step of a flow that differs from the control's.
fn other<'a>(flow: &'a [Step], control: &[Step]) -> Option<&'a Step> {
    let differs =
        |(number, step): &(usize, &Step)| control.get(*number).is_none_or(|same| same.what != step.what);
    flow.iter().enumerate().find(differs).map(|(_, step)| step)
}

/// Whether a packet is an ACK without data that arrived.
fn is_quiet(hop: &Hop) -> bool {
    let Payload::Tcp(header, length) = &hop.packet.what else { return false };
    *length == 0 && header.flags == Flags::ACK && hop.fate == HopFate::Arrived
}

fn begins(header: &Header) -> bool {
    header.flags.contains(Flags::SYN)
}

/// The content of a packet, regardless of ports, numbers and times.
fn content(hop: &Hop, first: u32) -> Content {
    match &hop.packet.what {
        Payload::Tcp(header, length) => {
            let flags = header.flags.bits() & !(Flags::ACK | Flags::PSH).bits();
            let seq = header.seq.wrapping_sub(first);
            // A RST may have any number.
            let seq = if header.flags.contains(Flags::RST) { 0 } else { seq };
            Content::Segment(flags, seq, *length)
        }
        Payload::Udp(_, _, length) => Content::Datagram(*length),
        Payload::Icmp(word) => Content::Other(word.clone()),
        Payload::Fragment => Content::Other("fragment".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hops::made::{crossing, header, linked};
    use faultlab_net::capture::{End, Frame};

    /// A connection that begins at a time, from a port: SYN, SYN-ACK, a request and
    /// its answer, ten milliseconds apart.
    fn connection(at: u64, port: u16) -> Vec<Vec<Frame>> {
        let (client, server) = (format!("10.0.0.1:{port}"), "10.0.0.2:80");
        let (there, back) = ([client.as_str(), server], [server, client.as_str()]);
        let seq = u32::from(port) * 1000;
        vec![
            crossing(at, Some(0), Some(1), header(there, Flags::SYN, seq, 0), b""),
            crossing(at + 10, Some(1), Some(0), header(back, Flags::SYN_ACK, 7 * seq, 0), b""),
            crossing(at + 20, Some(0), Some(1), header(there, Flags::ACK, seq + 1, 0), b""),
            crossing(at + 20, Some(0), Some(1), header(there, Flags::ACK, seq + 1, 0), b"GET"),
            crossing(at + 30, Some(1), Some(0), header(back, Flags::ACK, 7 * seq + 1, 0), b"OK"),
        ]
    }

    fn capture(frames: &[Vec<Vec<Frame>>]) -> Capture {
        let end =
            |host: &str| End { host: host.into(), interface: "eth0".into(), addresses: vec![], peer: None };
        let mut capture = Capture {
            ends: linked(vec![end("client"), end("server")]),
            frames: frames.concat().concat(),
            until: Duration::from_secs(60),
            ..Capture::default()
        };
        capture.sort();
        capture
    }

    /// When the first difference is, in milliseconds.
    fn differs(arm: &Capture, control: &Capture) -> Option<u64> {
        let verdicts = Verdicts::of(arm);
        let first = Flows::with(arm, &verdicts).first_difference(&Flows::of(control));
        first.map(|hop| u64::try_from(verdicts.hops[hop].at().as_millis()).unwrap())
    }

    #[test]
    fn connections_are_compared_whatever_their_ports_and_their_order_of_packets() {
        let control = capture(&[connection(0, 41000), connection(5, 42000)]);
        let arm = capture(&[connection(0, 51000), connection(12, 52000)]);
        assert_eq!(differs(&arm, &control), None);
    }

    #[test]
    fn a_reset_a_loss_and_a_retransmission_differ() {
        let control = capture(&[connection(0, 41000), connection(5000, 42000)]);
        let way = ["10.0.0.1:42000", "10.0.0.2:80"];
        let with = |more: Vec<Frame>| capture(&[connection(0, 41000), connection(5000, 42000), vec![more]]);
        let reset = with(crossing(6000, Some(0), Some(1), header(way, Flags::RST, 9, 0), b""));
        assert_eq!(differs(&reset, &control), Some(6000));
        let again = header(way, Flags::ACK, 42_000_001, 0);
        let again = with(crossing(5300, Some(0), Some(1), again, b"GET"));
        assert_eq!(differs(&again, &control), Some(5300));
        let mut lost = connection(5000, 42000);
        lost[3].truncate(1);
        assert_eq!(differs(&capture(&[connection(0, 41000), lost]), &control), Some(5020));
        // Before the last observation only.
        let early = Capture { last_observation: Some(Duration::from_secs(5)), ..reset };
        assert_eq!(differs(&early, &control), None);
    }

    #[test]
    fn what_is_missing_differs_where_it_ends() {
        let control = capture(&[connection(0, 41000), connection(5000, 42000)]);
        let mut short = connection(5000, 42000);
        short.pop();
        let arm = capture(&[connection(0, 41000), short]);
        assert_eq!(differs(&arm, &control), Some(5010));
        // The arm may have ended before.
        let early = Capture { until: Duration::from_millis(5025), ..arm };
        assert_eq!(differs(&early, &control), None);
    }

    #[test]
    fn one_more_connection_differs_while_the_control_is_observed() {
        let control = capture(&[connection(0, 41000)]);
        let arm = capture(&[connection(0, 41000), connection(5000, 42000)]);
        assert_eq!(differs(&arm, &control), Some(5000));
        let early = Capture { until: Duration::from_secs(5), ..control };
        assert_eq!(differs(&arm, &early), None);
    }

    #[test]
    fn an_incomplete_capture_proves_nothing() {
        let control = capture(&[connection(0, 41000)]);
        let arm = capture(&[connection(0, 41000), connection(5000, 42000)]);
        assert_eq!(differs(&Capture { lost: 1, ..arm.clone() }, &control), None);
        assert_eq!(differs(&arm, &Capture { lost: 1, ..control }), None);
    }
}
