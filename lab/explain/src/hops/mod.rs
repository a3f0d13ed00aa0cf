//! Frames that were seen twice, once where they left and once where they
//! arrived, are one hop; what became of the others is told by what is missing.

#[cfg(any(test, feature = "made"))]
pub mod made;
mod packet;
mod probed;
mod sides;
pub mod way;

use std::collections::HashMap;
use std::time::Duration;

use faultlab_net::capture::{Capture, Carried};
use faultlab_net::wire::segment::{Flags, Header, Timestamps};

pub use packet::{Content, Packet, What};
pub use probed::{Probed, probed};
pub use sides::between;

/// How long a packet may be under way when an arm ends.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What became of a packet on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Arrived,
    /// It left and arrived nowhere.
    Lost,
    /// It left as the arm ended.
    UnderWay,
    /// It arrived at one that should have passed it on, and never left again.
    Dropped,
    /// It arrived and had never left: a wire made it.
    Made,
}

/// A packet on a link.
#[derive(Debug)]
pub struct Hop {
    /// Where it left, as a position in [`Capture::ends`], and when.
    pub left: Option<(usize, Duration)>,
    /// Where it arrived.
    pub arrived: Option<(usize, Duration)>,
    /// Its frames, as positions in [`Capture::frames`]: where it left, and
    /// where it arrived.
    pub frames: [Option<usize>; 2],
    /// The packet, as it left, or as it arrived where it did not leave.
    pub packet: Packet,
    /// What became of it.
    pub fate: Fate,
    /// The hop, as a position among all, that brought the packet to where it
    /// leaves.
    pub before: Option<usize>,
    /// The first hop of what is sent again: on this link, else on the sender's.
    pub first: Option<usize>,
    /// Whether it arrived at one with several links, in time to be passed on,
    /// and was not.
    pub stays: bool,
    /// What the wire did with it, as far as that is known.
    pub carried: Option<Carried>,
    /// What the wire made of it.
    pub changed: Option<String>,
    /// What is to be said of it.
    pub comment: Option<String>,
    /// The timestamps that its segment arrived with: a wire may have changed them.
    stamps: Option<Timestamps>,
}

impl Hop {
    fn new(packet: Packet, comment: Option<&String>) -> Self {
        Self {
            stamps: packet.timestamps(),
            left: None,
            arrived: None,
            frames: [None; 2],
            packet,
            fate: Fate::Lost,
            before: None,
            first: None,
            stays: false,
            carried: None,
            changed: None,
            comment: comment.cloned(),
        }
    }

    /// When it began.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.left.or(self.arrived).map_or(Duration::ZERO, |(_, at)| at)
    }

    /// When it was over.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.arrived.map_or(self.at(), |(_, at)| at.max(self.at()))
    }
}

/// All hops of a capture, in the order of time.
#[must_use]
pub fn hops(capture: &Capture) -> Vec<Hop> {
    let host = |end: usize| capture.ends[end].host.as_str();
    let drawn = |end: usize| capture.ends.get(end).is_some_and(|e| e.interface != "lo");
    let mut frames: Vec<_> = capture.frames.iter().enumerate().filter(|(_, f)| drawn(f.end)).collect();
    // What leaves at an instant may arrive at the same.
    frames.sort_by_key(|(_, f)| (f.at, !f.outgoing));

    let mut hops: Vec<Hop> = vec![];
    let mut flying: HashMap<_, Vec<usize>> = HashMap::new();
    for (number, frame) in frames {
        let Some(packet) = Packet::read(frame) else { continue };
        let key = packet.content();
        if frame.outgoing {
            // What the wire did not pass on arrives nowhere.
            if matches!(frame.carried, None | Some(Carried::Passed)) {
                flying.entry(key).or_default().push(hops.len());
            }
        } else {
            let waiting = flying.get_mut(&key);
            let left = waiting.and_then(|waiting| {
                let other = |h: usize| {
                    let left: &Hop = &hops[h];
                    (left.packet.macs, left.packet.ends()) == (packet.macs, packet.ends())
                        && left.left.is_some_and(|(end, _)| host(end) != host(frame.end))
                };
                let passed = |h: usize| hops[h].carried.is_some();
                // The first of those that a wire passed on. Else the youngest of
                // equals: what is sent again was lost before.
                let first = waiting.iter().position(|&h| passed(h) && other(h));
                first.or_else(|| waiting.iter().rposition(|&h| other(h))).map(|at| waiting.remove(at))
            });
            if let Some(left) = left {
                let hop = &mut hops[left];
                hop.arrived = Some((frame.end, frame.at));
                hop.frames[1] = Some(number);
                hop.fate = Fate::Arrived;
                hop.changed = changed(&hop.packet, &packet);
                hop.stamps = packet.timestamps();
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
            hop.fate = Fate::Made;
        }
        hops.push(hop);
    }
    // Sockets are closed at the end, and nobody stays for the answers: what
    // left after the last arrival.
    let last = hops.iter().filter_map(|hop| hop.arrived).map(|(_, at)| at).max().unwrap_or_default();
    let ending = |at: Duration| !capture.until.is_zero() && at >= last && at + UNDER_WAY >= capture.until;
    end_with_the_arm(capture, &mut hops);
    if capture.lost > 0 {
        // What was not seen is not known to be lost.
        hops.retain(|hop| matches!(hop.fate, Fate::Arrived | Fate::UnderWay));
    }
    hops.sort_by_key(|hop| (hop.at(), hop.until()));
    way::follow(capture, &mut hops, ending);
    way::again(&mut hops);
    hops
}

/// Finds what was on its way when the capture ended.
fn end_with_the_arm(capture: &Capture, hops: &mut [Hop]) {
    let mut crossed: HashMap<usize, Duration> = HashMap::new();
    for (end, at) in hops.iter().filter(|hop| hop.fate == Fate::Arrived).filter_map(|hop| hop.left) {
        let last = crossed.entry(end).or_default();
        *last = at.max(*last);
    }
    for hop in hops.iter_mut().filter(|hop| hop.fate == Fate::Lost) {
        let (end, at) = hop.left.unwrap_or_default();
        // A link keeps the order: what is overtaken on it comes no more.
        let overtaken = crossed.get(&end).is_some_and(|&later| later > at);
        let is_under_way = match hop.carried {
            Some(Carried::Passed | Carried::Waits) => true,
            Some(Carried::Held | Carried::Lost) => false,
            None => !overtaken && !capture.until.is_zero() && at + UNDER_WAY >= capture.until,
        };
        if is_under_way {
            hop.fate = Fate::UnderWay;
        }
    }
}

/// What a wire wrote over the timestamps of a SYN.
fn changed(left: &Packet, arrived: &Packet) -> Option<String> {
    let (What::Tcp(left, _), What::Tcp(arrived, _)) = (&left.what, &arrived.what) else { return None };
    let value = |header: &Header| header.timestamps.map(|stamps| stamps.tsval);
    if !left.flags.contains(Flags::SYN) || value(left) == value(arrived) {
        return None;
    }
    Some(match value(arrived) {
        Some(value) => format!("arrives with TSval {value}"),
        None => "arrives without timestamps".to_owned(),
    })
}
