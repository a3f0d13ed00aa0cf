//! Pairs the frames of a capture into hops. A frame captured where it left and where
//! it arrived is one hop; for the others, the missing frame tells what happened.

#[cfg(any(test, feature = "made"))]
pub mod made;
mod packet;
mod probed;
mod sides;
pub mod way;

use std::collections::HashMap;
use std::time::Duration;

use faultlab_base::text::Line;
use faultlab_net::capture::{Capture, Carried};
use faultlab_net::wire::segment::{Flags, Header, Timestamps};

pub use packet::{Content, Packet, Payload};
pub use probed::{Probed, probed};
pub use sides::between;

/// How long a packet may be in flight when an arm ends.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What happened to a packet on a link, as far as the capture shows. [`Carried`] is
/// what a wire did with a frame; [`Fate`](faultlab_net::wire::Fate) is the wire's own
/// record of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopFate {
    /// It arrived.
    Arrived,
    /// It left and did not arrive.
    Lost,
    /// It was in flight when the arm ended.
    UnderWay,
    /// It arrived at a host that should have forwarded it, and was not forwarded.
    Dropped,
    /// It arrived without having been sent: a wire generated it.
    Made,
}

/// A packet on a link.
#[derive(Debug)]
pub struct Hop {
    /// Where it left, as a position in [`Capture::ends`], and when.
    pub left: Option<(usize, Duration)>,
    /// Where it arrived.
    pub arrived: Option<(usize, Duration)>,
    /// Its frames, as positions in [`Capture::frames`]: the one that left, and the
    /// one that arrived.
    pub frames: [Option<usize>; 2],
    /// The packet as it left, or as it arrived if it was not sent.
    pub packet: Packet,
    /// What happened to it.
    pub fate: HopFate,
    /// The index of the hop that brought the packet to the host that it leaves here.
    pub before: Option<usize>,
    /// For a retransmission, the hop of the original on this link; if the original
    /// never reached this link, its hop on the sender's link.
    pub first: Option<usize>,
    /// Whether it arrived at a host with several links, early enough to be forwarded,
    /// and was not.
    pub stays: bool,
    /// What the wire did with it, if known.
    pub carried: Option<Carried>,
    /// How the wire changed the timestamps of a SYN.
    pub changed: Option<String>,
    /// The headers of its segment on arrival.
    pub received: Option<Header>,
    /// The comment on it.
    pub comment: Option<Line>,
    /// The timestamps of its segment on arrival: a wire may have changed them.
    stamps: Option<Timestamps>,
}

impl Hop {
    fn new(packet: Packet, comment: Option<&Line>) -> Self {
        Self {
            stamps: packet.timestamps(),
            left: None,
            arrived: None,
            frames: [None; 2],
            packet,
            fate: HopFate::Lost,
            before: None,
            first: None,
            stays: false,
            carried: None,
            changed: None,
            received: None,
            comment: comment.cloned(),
        }
    }

    /// When it left; when it arrived, if it was not sent.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.left.or(self.arrived).map_or(Duration::ZERO, |(_, at)| at)
    }

    /// When it arrived; when it left, if it did not arrive.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.arrived.map_or(self.at(), |(_, at)| at.max(self.at()))
    }
}

/// All hops of a capture, in order of time.
#[must_use]
pub fn hops(capture: &Capture) -> Vec<Hop> {
    let host = |end: usize| capture.ends[end].host.as_str();
    let drawn = |end: usize| capture.ends.get(end).is_some_and(|e| e.interface != "lo");
    let mut frames: Vec<_> = capture.frames.iter().enumerate().filter(|(_, f)| drawn(f.end)).collect();
    // A packet may leave and arrive at the same instant.
    frames.sort_by_key(|(_, f)| (f.at, !f.outgoing));

    let mut hops: Vec<Hop> = vec![];
    let mut flying: HashMap<_, Vec<usize>> = HashMap::new();
    for (number, frame) in frames {
        let Some(packet) = Packet::read(frame) else { continue };
        let key = packet.content();
        if frame.outgoing {
            // Only a frame that a wire passed on, or that crossed none, can arrive.
            if matches!(frame.carried, None | Some(Carried::Passed)) {
                flying.entry(key).or_default().push(hops.len());
            }
        } else {
            let waiting = flying.get_mut(&key);
            let left = waiting.and_then(|waiting| {
                let other = |h: usize| {
                    let left: &Hop = &hops[h];
                    (left.packet.macs, left.packet.endpoints()) == (packet.macs, packet.endpoints())
                        && left.left.is_some_and(|(end, _)| host(end) != host(frame.end))
                };
                let passed = |h: usize| hops[h].carried.is_some();
                // Take the first one that a wire passed on; otherwise the latest of
                // equal packets, because the original of a retransmission was lost.
                let first = waiting.iter().position(|&h| passed(h) && other(h));
                first.or_else(|| waiting.iter().rposition(|&h| other(h))).map(|at| waiting.remove(at))
            });
            if let Some(left) = left {
                let hop = &mut hops[left];
                hop.arrived = Some((frame.end, frame.at));
                hop.frames[1] = Some(number);
                hop.fate = HopFate::Arrived;
                hop.changed = changed(&hop.packet, &packet);
                hop.stamps = packet.timestamps();
                hop.received = packet.header().copied();
                hop.comment = hop.comment.take().or(frame.comment.clone());
                continue;
            }
        }
        let mut hop = Hop::new(packet, frame.comment.as_ref());
        if frame.outgoing {
            hop.left = Some((frame.end, frame.at));
            hop.frames[0] = Some(number);
            hop.carried = frame.carried;
        } else {
            hop.arrived = Some((frame.end, frame.at));
            hop.frames[1] = Some(number);
            hop.fate = HopFate::Made;
        }
        hops.push(hop);
    }
    // An arm closes its sockets at its end, and does not wait until what they send
    // arrives. The last packets are therefore not taken for dropped.
    let last = hops.iter().filter_map(|hop| hop.arrived).map(|(_, at)| at).max().unwrap_or_default();
    let ending = |at: Duration| !capture.until.is_zero() && at >= last && at + UNDER_WAY >= capture.until;
    end_with_the_arm(capture, &mut hops);
    if capture.lost > 0 {
        // With an incomplete capture, a packet without a second frame is not known to
        // be lost.
        hops.retain(|hop| matches!(hop.fate, HopFate::Arrived | HopFate::UnderWay));
    }
    hops.sort_by_key(|hop| (hop.at(), hop.until()));
    way::follow(capture, &mut hops, ending);
    way::again(&mut hops);
    hops
}

/// Finds the packets that were in flight when the capture ended.
fn end_with_the_arm(capture: &Capture, hops: &mut [Hop]) {
    let mut crossed: HashMap<usize, Duration> = HashMap::new();
    for (end, at) in hops.iter().filter(|hop| hop.fate == HopFate::Arrived).filter_map(|hop| hop.left) {
        let last = crossed.entry(end).or_default();
        *last = at.max(*last);
    }
    for hop in hops.iter_mut().filter(|hop| hop.fate == HopFate::Lost) {
        let (end, at) = hop.left.unwrap_or_default();
        // A link keeps the order: a packet that was overtaken on it will not arrive.
        let overtaken = crossed.get(&end).is_some_and(|&later| later > at);
        let is_under_way = match hop.carried {
            Some(Carried::Passed | Carried::Waits) => true,
            Some(Carried::Held | Carried::Lost) => false,
            None => !overtaken && !capture.until.is_zero() && at + UNDER_WAY >= capture.until,
        };
        if is_under_way {
            hop.fate = HopFate::UnderWay;
        }
    }
}

/// How a wire changed the timestamps of a SYN.
fn changed(left: &Packet, arrived: &Packet) -> Option<String> {
    let (Payload::Tcp(left, _), Payload::Tcp(arrived, _)) = (&left.what, &arrived.what) else { return None };
    let value = |header: &Header| header.timestamps.map(|stamps| stamps.tsval);
    if !left.flags.contains(Flags::SYN) || value(left) == value(arrived) {
        return None;
    }
    Some(match value(arrived) {
        Some(value) => format!("arrives with TSval {value}"),
        None => "arrives without timestamps".to_owned(),
    })
}
