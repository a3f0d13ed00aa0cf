//! Follows packets from link to link, and finds retransmissions.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::packet::{Content, Payload};
use super::{Hop, HopFate};
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::Flags;

/// Links every hop to the one before it, and finds the packets that arrived at a host
/// that should have forwarded them, and were not forwarded.
pub(super) fn follow(capture: &Capture, hops: &mut [Hop], ending: impl Fn(Duration) -> bool) {
    let mut places: HashMap<&str, (usize, Vec<IpAddr>)> = HashMap::new();
    for end in capture.ends.iter().filter(|e| e.interface != "lo") {
        let place = places.entry(&end.host).or_default();
        place.0 += 1;
        place.1.extend(&end.addresses);
    }
    let mut departures: HashMap<(&str, Content), Vec<usize>> = HashMap::new();
    for (number, hop) in hops.iter().enumerate() {
        if let Some((end, _)) = hop.left {
            let key = (capture.ends[end].host.as_str(), hop.packet.content());
            departures.entry(key).or_default().push(number);
        }
    }
    for number in 0..hops.len() {
        let hop = &hops[number];
        let Some((end, at)) = hop.arrived else { continue };
        let host = capture.ends[end].host.as_str();
        let Some((links, own)) = places.get(host) else { continue };
        let dst = hop.packet.dst;
        let is_own = own.contains(&dst);
        // A packet to the router's own address may be a reply that NAT translates back
        // and forwards. After a translation, only a TCP segment can be recognised, by
        // its numbers.
        let other = is_own && !matches!(hop.packet.what, Payload::Tcp(..));
        if *links < 2 || other || dst.is_multicast() || dst == Ipv4Addr::BROADCAST {
            continue;
        }
        let departures = departures.entry((host, hop.packet.content())).or_default();
        // IPv6 has no identification: a retransmission has another timestamp.
        let same = |next: &Hop| hop.packet.id.is_some() || next.packet.timestamps() == hop.stamps;
        let later = |next: &usize| {
            let next = &hops[*next];
            next.left.is_some_and(|(_, left)| left >= at) && same(next)
        };
        match departures.iter().position(later) {
            Some(next) => hops[departures.remove(next)].before = Some(number),
            // With an incomplete capture, a missing packet is not known to be dropped.
            None if capture.lost > 0 || (is_own && ending(at)) => {}
            None if ending(at) => hops[number].fate = HopFate::UnderWay,
            None => {
                hops[number].stays = true;
                if !is_own {
                    hops[number].fate = HopFate::Dropped;
                }
            }
        }
    }
    let own = own_conversations(capture, hops);
    for hop in hops.iter_mut().filter(|hop| hop.fate == HopFate::Dropped) {
        let host = hop.arrived.map(|(end, _)| capture.ends[end].host.as_str());
        if host.is_some_and(|host| own.contains(&(host, hop.packet.endpoints()))) {
            hop.fate = HopFate::Arrived;
        }
    }
}

/// For each host, the source and destination of the segments of its own connections:
/// the reverse of every segment that it sent itself, earlier or later. Such a segment
/// was for the host and was not dropped, even if the host does not have the address. A
/// RST does not count: a rule may have sent it.
fn own_conversations<'a>(capture: &'a Capture, hops: &[Hop]) -> HashSet<(&'a str, (SocketAddr, SocketAddr))> {
    let speaks =
        |what: &Payload| matches!(what, Payload::Tcp(header, _) if !header.flags.contains(Flags::RST));
    let own = hops.iter().filter(|hop| hop.before.is_none() && speaks(&hop.packet.what));
    let back = own.filter_map(|hop| {
        let ((end, _), (src, dst)) = (hop.left?, hop.packet.endpoints());
        Some((capture.ends[end].host.as_str(), (dst, src)))
    });
    back.collect()
}

/// The first hop of a packet, which leaves the host that sent it.
#[must_use]
pub fn origin<'a>(hops: &'a [Hop], hop: &'a Hop) -> &'a Hop {
    let mut origin = hop;
    // Hops of the same instant could form a cycle: bound the loop.
    for _ in 0..hops.len() {
        let Some(before) = origin.before else { break };
        origin = &hops[before];
    }
    origin
}

/// Finds retransmissions, RFC 9293 3.8.1: segments that this link, or the sender's,
/// has carried in the same direction before. An ACK without data takes no sequence
/// number, and is not a retransmission.
pub(super) fn again(hops: &mut [Hop]) {
    let mut sent: HashMap<_, Vec<(u32, u32, usize)>> = HashMap::new();
    for (number, hop) in hops.iter_mut().enumerate() {
        let (Some((end, _)), Payload::Tcp(header, _)) = (hop.left, &hop.packet.what) else { continue };
        let (seq, length) = (header.seq, hop.packet.sequence_length());
        if length == 0 {
            continue;
        }
        let sent = sent.entry((end, header.src, header.dst)).or_default();
        hop.first = sent.iter().find(|(from, many, _)| seq.wrapping_sub(*from) < *many).map(|sent| sent.2);
        if hop.first.is_none() {
            sent.push((seq, length, number));
        }
    }
    let senders: Vec<_> = hops.iter().map(|hop| origin(hops, hop).first).collect();
    for (hop, first) in hops.iter_mut().zip(senders) {
        hop.first = hop.first.or(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hops::hops;
    use crate::hops::made::{crossing, header, linked};
    use faultlab_net::capture::End;

    /// The fate of a segment to a router that does not have its address, where the
    /// router answers with these flags.
    fn fate(flags: Flags) -> HopFate {
        let end = |host: &str, interface: &str, last| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![[10, 0, 0, last].into()],
            peer: None,
        };
        let segment = header(["10.0.0.2:1", "10.96.0.1:80"], Flags::SYN, 5, 0);
        let answer = header(["10.96.0.1:80", "10.0.0.2:1"], flags, 9, 0);
        let capture = Capture {
            ends: linked(vec![
                end("a", "nat", 2),
                end("nat", "a", 1),
                end("nat", "b", 3),
                end("b", "nat", 4),
            ]),
            frames: [
                crossing(0, Some(0), Some(1), segment, b""),
                crossing(10, Some(1), Some(0), answer, b""),
            ]
            .concat(),
            until: Duration::from_secs(60),
            ..Capture::default()
        };
        hops(&capture)[0].fate
    }

    #[test]
    fn what_a_router_answers_itself_is_not_dropped() {
        assert_eq!(fate(Flags::SYN_ACK), HopFate::Arrived);
        // A rule that rejects a packet drops it too.
        assert_eq!(fate(Flags::RST), HopFate::Dropped);
    }

    #[test]
    fn a_router_that_drops_the_first_syn_passes_the_second_on() {
        let end = |host: &str, interface: &str, address: &str| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![address.parse().unwrap()],
            peer: None,
        };
        // A retransmission has the same sequence numbers, and IPv6 has no
        // identification.
        let syn = |tsval: u32| header(["[2001:db8::2]:1", "[2001:db8:1::2]:80"], Flags::SYN, 5, tsval);
        let capture = Capture {
            ends: linked(vec![
                end("a", "gw", "2001:db8::2"),
                end("gw", "a", "2001:db8::1"),
                end("gw", "b", "2001:db8:1::1"),
                end("b", "gw", "2001:db8:1::2"),
            ]),
            frames: [
                crossing(0, Some(0), Some(1), syn(0), b""),
                crossing(1000, Some(0), Some(1), syn(1000), b""),
                crossing(1002, Some(2), Some(3), syn(1000), b""),
            ]
            .concat(),
            until: Duration::from_secs(60),
            ..Capture::default()
        };
        let hops = hops(&capture);
        assert_eq!(
            hops.iter().map(|hop| hop.fate).collect::<Vec<_>>(),
            [HopFate::Dropped, HopFate::Arrived, HopFate::Arrived]
        );
        assert_eq!(hops.iter().map(|hop| hop.before).collect::<Vec<_>>(), [None, None, Some(1)]);
        assert_eq!(hops[1].first, Some(0));
    }
}
