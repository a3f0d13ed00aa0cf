//! What happened to each packet and why: which host sent a RST and what it answers, and
//! which flows a host stopped translating. This is inferred once; the comments of a
//! capture, ladders and explanations all use the result.
//!
//! - RFC 9293 3.10.7.1: "If the ACK bit is off, sequence number zero is used,
//!   <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit is on,
//!   <SEQ=SEG.ACK><CTL=RST>."

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::hops::{Hop, HopFate, Packet, Payload, Probed, between, hops, probed, way};
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::{Flags, Header};

/// The source and destination of a packet.
pub type Endpoints = (SocketAddr, SocketAddr);

/// The packets of a capture, and what happened to each.
#[derive(Debug)]
pub struct Verdicts<'a> {
    /// The packets on each link, in order of time. The other fields refer to them by
    /// position.
    pub hops: Vec<Hop>,
    /// One for each hop.
    pub all: Vec<Verdict<'a>>,
    /// The packets of the probes.
    pub probed: Vec<Probed<'a>>,
}

/// What happened to a packet on a link, in addition to its [`HopFate`], and why.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The sending host, if known.
    pub from: Option<&'a str>,
    /// The receiving host, if known.
    pub to: Option<&'a str>,
    /// For a RST: who sent it.
    pub reset: Option<Reset<'a>>,
    /// How the receiving host translated its addresses; `None` if it was not known to
    /// translate the flow.
    pub translation: Option<Translation>,
}

/// Who sent a RST, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset<'a> {
    /// The host; `None` if a wire sent it.
    pub maker: Option<&'a str>,
    /// The hop that it answers: the last to arrive with matching sequence numbers.
    pub answers: Option<usize>,
}

/// How a host translated the addresses of a packet that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// It translated them. `first` is the first hop of the flow that was translated
    /// this way.
    Made {
        /// The hop.
        first: usize,
    },
    /// It did not translate them, although it translated the same flow before.
    Missing {
        /// The first hop that was translated.
        unlike: usize,
        /// The addresses after the last translation.
        was: Endpoints,
    },
}

impl<'a> Verdicts<'a> {
    /// Infers the verdicts from a capture.
    #[must_use]
    pub fn of(capture: &'a Capture) -> Self {
        let hops = hops(capture);
        let probed = probed(capture, &hops);
        let (resets, translations) = (resets(capture, &hops), translations(capture, &hops));
        let verdicts = hops.iter().zip(resets).zip(translations);
        let verdict = |((hop, reset), translation): ((&Hop, _), _)| {
            let (from, to) = between(capture, hop);
            Verdict { from, to, reset, translation }
        };
        let all = verdicts.map(verdict).collect();
        Self { hops, all, probed }
    }
}

/// Who sent each RST, and what it answers.
fn resets<'a>(capture: &'a Capture, hops: &[Hop]) -> Vec<Option<Reset<'a>>> {
    let made = |hop: &Hop| {
        tcp(&hop.packet).filter(|header| header.flags.contains(Flags::RST))?;
        let origin = way::origin(hops, hop);
        let maker = origin.left.map(|(end, _)| capture.ends[end].host.as_str());
        Some(Reset { maker, answers: answered_by_reset(capture, hops, origin) })
    };
    hops.iter().map(made).collect()
}

/// The hop that a RST answers, by its sequence numbers.
fn answered_by_reset(capture: &Capture, hops: &[Hop], reset: &Hop) -> Option<usize> {
    let (header, (end, at)) = (tcp(&reset.packet)?, reset.left?);
    let host = &capture.ends[end].host;
    let answers = |(_, hop): &(usize, &Hop)| {
        let Some(asked) = tcp(&hop.packet) else { return false };
        let here = hop.arrived.is_some_and(|(end, arrived)| capture.ends[end].host == *host && arrived <= at);
        let numbers = if asked.flags.contains(Flags::ACK) {
            !header.flags.contains(Flags::ACK) && header.seq == asked.ack
        } else {
            let next = asked.seq.wrapping_add(hop.packet.sequence_length());
            header.flags.contains(Flags::ACK) && (header.seq, header.ack) == (0, next)
        };
        here && (asked.src, asked.dst) == (header.dst, header.src) && numbers
    };
    let last = hops.iter().enumerate().filter(answers).max_by_key(|(_, hop)| hop.until());
    last.map(|(number, _)| number)
}

/// How the host that received each packet translated its addresses.
fn translations(capture: &Capture, hops: &[Hop]) -> Vec<Option<Translation>> {
    let mut next = vec![None; hops.len()];
    for (number, hop) in hops.iter().enumerate() {
        if let Some(before) = hop.before {
            next[before] = Some(number);
        }
    }
    // By host and flow: the first translated hop, and the addresses after the last
    // translation.
    let mut known: HashMap<(&str, Endpoints), (usize, Endpoints)> = HashMap::new();
    let of = |(number, hop): (usize, &Hop)| {
        let (end, _) = hop.arrived?;
        let (host, endpoints) = (capture.ends[end].host.as_str(), hop.packet.endpoints());
        match next[number] {
            Some(next) if hops[next].packet.endpoints() != endpoints => {
                let became = hops[next].packet.endpoints();
                let known = known.entry((host, endpoints)).or_insert((next, became));
                known.1 = became;
                Some(Translation::Made { first: known.0 })
            }
            // A packet for the host itself was not to be forwarded.
            None if !hop.stays && hop.fate != HopFate::Dropped => None,
            _ => known.get(&(host, endpoints)).map(|&(unlike, was)| Translation::Missing { unlike, was }),
        }
    };
    hops.iter().enumerate().map(of).collect()
}

fn tcp(packet: &Packet) -> Option<&Header> {
    if let Payload::Tcp(header, _) = &packet.what { Some(header) } else { None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hops::made::{crossing, header, linked};
    use faultlab_net::capture::End;

    const INSIDE: [&str; 2] = ["10.0.1.2:9", "192.0.2.2:80"];
    const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "192.0.2.2:80"];

    #[test]
    fn a_packet_is_untranslated_where_it_arrived_and_others_of_its_way_were_translated() {
        let end = |host: &str, interface: &str| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![],
            peer: None,
        };
        let ends = [("client", "eth0"), ("nat", "eth0"), ("nat", "eth1"), ("server", "eth0")];
        let data = |way, seq| header(way, Flags::ACK, seq, 0);
        let capture = Capture {
            ends: linked(ends.map(|(host, interface)| end(host, interface)).into()),
            frames: [
                crossing(0, Some(0), Some(1), data(INSIDE, 1), b"hello"),
                crossing(2, Some(2), Some(3), data(OUTSIDE, 1), b"hello"),
                // The same as before.
                crossing(10, Some(0), Some(1), data(INSIDE, 6), b"hello"),
                crossing(12, Some(2), Some(3), data(INSIDE, 6), b"hello"),
                crossing(20, Some(0), Some(1), data(INSIDE, 11), b"hello"),
                // It never reached the NAT.
                crossing(30, Some(0), None, data(INSIDE, 16), b"hello"),
                // A segment that the NAT refuses.
                crossing(40, Some(1), Some(0), header([INSIDE[1], INSIDE[0]], Flags::RST, 0, 0), b""),
            ]
            .concat(),
            until: Duration::from_secs(60),
            ..Capture::default()
        };
        let verdicts = Verdicts::of(&capture);
        let was = OUTSIDE.map(|end| end.parse().unwrap()).into();
        let missing = Some(Translation::Missing { unlike: 1, was });
        let told: Vec<_> = verdicts.all.iter().map(|verdict| verdict.translation).collect();
        assert_eq!(told, [Some(Translation::Made { first: 1 }), None, missing, None, missing, None, None]);
        // The topology names the destination of the lost packet.
        assert_eq!((verdicts.all[5].from, verdicts.all[5].to), (Some("client"), Some("nat")));
        let resets: Vec<_> = verdicts.all.iter().filter_map(|verdict| verdict.reset).collect();
        assert_eq!(resets, [Reset { maker: Some("nat"), answers: Some(4) }]);
    }
}
