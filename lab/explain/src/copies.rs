//! Frames that show the same packet again: where it arrives unchanged, and where a host
//! forwards it with the same addresses. Programs such as Wireshark take such a copy for
//! a retransmission.

use std::collections::{HashMap, VecDeque};

use crate::hops::{Hop, Payload};
use faultlab_net::capture::Capture;

/// Which frames of a capture to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// Every packet once, as it was sent. A second copy where a host translated its
    /// addresses, and where a wire changed it. A packet that a wire made, as it was
    /// received.
    AsSent,
    /// Every packet at both ends of every link.
    BothEnds,
}

/// For each frame of a capture, the frame that shows it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The frame that stands for each frame, as a position in [`Capture::frames`].
    representative: Vec<usize>,
    /// The numbers of the frames that are shown, from 1.
    numbers: Vec<usize>,
}

impl Shown {
    pub(crate) fn of(capture: &Capture, hops: &[Hop], frames: Frames) -> Self {
        let mut groups = Groups((0..capture.frames.len()).collect());
        if frames == Frames::AsSent {
            packets(hops, &mut groups);
            others(capture, hops, &mut groups);
        }
        let by = groups.shown(|frame| capture.frames[frame].outgoing);
        let mut shown = 0;
        let count = |(frame, by): (usize, &usize)| {
            shown += usize::from(frame == *by);
            shown
        };
        let numbers = by.iter().enumerate().map(count).collect();
        Self { representative: by, numbers }
    }

    /// The frame that shows this one.
    pub(crate) fn by(&self, frame: usize) -> usize {
        self.representative.get(frame).copied().unwrap_or(frame)
    }

    /// The number of the frame that shows this one.
    pub(crate) fn number(&self, frame: usize) -> usize {
        self.numbers.get(self.by(frame)).copied().unwrap_or_default()
    }
}

/// Whether a wire changed a packet, and a frame shows it as it arrived.
pub(crate) fn is_changed(hop: &Hop) -> bool {
    match (&hop.packet.what, &hop.received) {
        (Payload::Tcp(left, _), Some(arrived)) => left != arrived,
        _ => false,
    }
}

/// Groups the frames of each packet, as long as its addresses stay.
fn packets(hops: &[Hop], groups: &mut Groups) {
    for hop in hops {
        if let ([Some(left), Some(arrived)], false) = (hop.frames, is_changed(hop)) {
            groups.join(left, arrived);
        }
        let Some(before) = hop.before.map(|before| &hops[before]) else { continue };
        let addresses = |hop: &Hop| (hop.packet.src, hop.packet.dst, hop.packet.endpoints());
        if let ([_, Some(arrived)], [Some(left), _]) = (before.frames, hop.frames)
            && addresses(before) == addresses(hop)
        {
            groups.join(arrived, left);
        }
    }
}

/// Groups the frames that are part of no hop, such as ARP and those of the loopback,
/// by their bytes.
fn others(capture: &Capture, hops: &[Hop], groups: &mut Groups) {
    let mut is_known = vec![false; capture.frames.len()];
    for frame in hops.iter().flat_map(|hop| hop.frames).flatten() {
        is_known[frame] = true;
    }
    let other = || capture.frames.iter().enumerate().filter(|(number, _)| !is_known[*number]);
    let mut sent: HashMap<(usize, &[u8]), VecDeque<usize>> = HashMap::new();
    for (number, frame) in other().filter(|(_, frame)| frame.outgoing) {
        let Some(end) = capture.ends.get(frame.end) else { continue };
        let to = if end.interface == "lo" { Some(frame.end) } else { end.peer };
        if let Some(to) = to {
            sent.entry((to, &frame.bytes)).or_default().push_back(number);
        }
    }
    for (number, frame) in other().filter(|(_, frame)| !frame.outgoing) {
        let queue = sent.get_mut(&(frame.end, frame.bytes.as_slice()));
        if let Some(left) = queue.and_then(VecDeque::pop_front) {
            groups.join(left, number);
        }
    }
}

/// Disjoint sets of frames; every frame refers to one of its set with a smaller
/// number, the first to itself.
#[derive(Debug)]
struct Groups(Vec<usize>);

impl Groups {
    fn first(&self, mut frame: usize) -> usize {
        while self.0[frame] != frame {
            frame = self.0[frame];
        }
        frame
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        self.0[one.max(other)] = one.min(other);
    }

    /// For each frame, the one that shows its set: the first that was sent.
    fn shown(&self, is_sent: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut shown: HashMap<usize, usize> = HashMap::new();
        for frame in (0..self.0.len()).filter(|frame| is_sent(*frame)) {
            shown.entry(self.first(frame)).or_insert(frame);
        }
        let by = |frame| {
            let first = self.first(frame);
            shown.get(&first).copied().unwrap_or(first)
        };
        (0..self.0.len()).map(by).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hops::hops;
    use crate::hops::made::{crossing, header, linked};
    use faultlab_net::capture::{End, Frame};
    use faultlab_net::wire::segment::Flags;

    const INSIDE: [&str; 2] = ["10.0.1.2:9", "192.0.2.2:80"];
    const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "192.0.2.2:80"];

    /// The frames that are shown of these, on the way from a client through a router
    /// to a server.
    fn shown(frames: Vec<Frame>) -> Vec<usize> {
        let ends = [("client", "eth0"), ("router", "eth0"), ("router", "eth1"), ("server", "eth0")];
        let end = |(host, interface): (&str, &str)| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![],
            peer: None,
        };
        let ends = linked(ends.map(end).into());
        let capture = Capture { ends, frames, until: Duration::from_secs(60), ..Capture::default() };
        let shown = Shown::of(&capture, &hops(&capture), Frames::AsSent);
        let own: Vec<_> = (0..capture.frames.len()).filter(|frame| shown.by(*frame) == *frame).collect();
        // They are numbered without a gap.
        assert_eq!(
            own.iter().map(|frame| shown.number(*frame)).collect::<Vec<_>>(),
            (1..=own.len()).collect::<Vec<_>>()
        );
        own
    }

    #[test]
    fn a_packet_is_shown_once_for_each_pair_of_addresses() {
        let syn = |way, tsval| header(way, Flags::SYN, 1, tsval);
        let translated = [
            crossing(0, Some(0), Some(1), syn(INSIDE, 1), b""),
            crossing(2, Some(2), Some(3), syn(OUTSIDE, 1), b""),
        ];
        assert_eq!(shown(translated.concat()), [0, 2]);
        let forwarded = [
            crossing(0, Some(0), Some(1), syn(INSIDE, 1), b""),
            crossing(2, Some(2), Some(3), syn(INSIDE, 1), b""),
            // Sent again.
            crossing(1000, Some(0), Some(1), syn(INSIDE, 2), b""),
            crossing(1002, Some(2), Some(3), syn(INSIDE, 2), b""),
        ];
        assert_eq!(shown(forwarded.concat()), [0, 4]);
    }

    #[test]
    fn what_a_wire_lost_made_or_changed_is_shown() {
        let syn = |tsval| header(INSIDE, Flags::SYN, 1, tsval);
        let lost = crossing(0, Some(0), None, syn(1), b"");
        assert_eq!(shown(lost), [0]);
        let made = crossing(0, None, Some(1), header(INSIDE, Flags::RST, 1, 1), b"");
        assert_eq!(shown(made), [0]);
        let changed =
            [crossing(0, Some(0), None, syn(1), b""), crossing(0, None, Some(1), syn(5000), b"")].concat();
        assert_eq!(shown(changed), [0, 1]);
    }

    #[test]
    fn what_is_no_packet_is_shown_once_as_well() {
        let arp = |at: u64, end, outgoing| Frame {
            at: Duration::from_millis(at),
            end,
            outgoing,
            length: 42,
            bytes: vec![8, 6, 1],
            comment: None,
            carried: None,
        };
        assert_eq!(shown(vec![arp(0, 0, true), arp(1, 1, false), arp(5, 0, true), arp(6, 1, false)]), [0, 2]);
        // The other link's.
        assert_eq!(shown(vec![arp(0, 0, true), arp(1, 3, false)]), [0, 1]);
    }
}
