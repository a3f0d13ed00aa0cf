//! Marks in a capture what wires did with frames. A frame that a wire dropped is
//! lost, whatever else was captured; a frame that it passed on is not.

use std::collections::{HashMap, VecDeque};

use crate::hops::{Packet, Payload};
use faultlab_net::capture::{Capture, Carried};
use faultlab_net::wire::segment::Identity;
use faultlab_net::wire::{Direction, Fate as WireFate, Origin, Record};

/// Marks the frames sent from either end of a wire, each given as a host and an
/// interface, with what the wire did with them. Equal segments are matched in the order
/// in which they were sent.
pub fn mark(capture: &mut Capture, ends: [(&str, &str); 2], records: &[Record]) {
    for (direction, (host, interface)) in [Direction::There, Direction::Back].into_iter().zip(ends) {
        let Some(end) = capture.ends.iter().position(|e| e.host == host && e.interface == interface) else {
            continue;
        };
        let mut met: HashMap<Identity, VecDeque<WireFate>> = HashMap::new();
        for record in records.iter().filter(|r| r.direction == direction && r.origin == Origin::End) {
            if let Some(header) = record.header {
                met.entry(header.identity(record.length)).or_default().push_back(record.fate);
            }
        }
        let mut since = vec![];
        for frame in capture.frames.iter_mut().filter(|frame| frame.end == end && frame.outgoing) {
            let Some(Payload::Tcp(header, length)) = Packet::read(frame).map(|packet| packet.what) else {
                continue;
            };
            frame.carried = match met.get_mut(&header.identity(length)).and_then(VecDeque::pop_front) {
                None => {
                    since.push(frame);
                    continue;
                }
                Some(WireFate::Passed { .. }) => Some(Carried::Passed),
                Some(WireFate::Held) => Some(Carried::Held),
                Some(WireFate::Dropped | WireFate::Unsent) => Some(Carried::Lost),
            };
            since.clear();
        }
        // Frames sent after the last that the wire received.
        for frame in since {
            frame.carried = Some(Carried::Waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hops::made::{crossing, header};
    use crate::hops::{HopFate, hops};
    use faultlab_net::capture::End;
    use faultlab_net::wire::segment::Flags;

    /// The fates of the first and the second of two equal resets, given these records
    /// of the wire; only one of them arrives.
    fn fates(said: &[WireFate]) -> Vec<HopFate> {
        let end = |host: &str, interface: &str| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![],
            peer: None,
        };
        let reset = header(["10.0.0.1:1", "10.0.0.2:2"], Flags::RST, 5, 0);
        let mut capture = Capture {
            ends: vec![end("a", "eth0"), end("b", "eth1")],
            frames: [
                crossing(0, Some(0), None, reset, b""),
                crossing(10, Some(0), None, reset, b""),
                crossing(20, None, Some(1), reset, b""),
            ]
            .concat(),
            until: Duration::from_secs(60),
            ..Capture::default()
        };
        let record = |&fate: &WireFate| Record {
            at: Duration::ZERO,
            direction: Direction::There,
            origin: Origin::End,
            header: Some(reset),
            length: 0,
            fate,
        };
        let records: Vec<_> = said.iter().map(record).collect();
        mark(&mut capture, [("a", "eth0"), ("b", "eth1")], &records);
        hops(&capture).iter().map(|hop| hop.fate).collect()
    }

    #[test]
    fn what_the_wire_dropped_is_lost_and_the_other_arrived() {
        use HopFate::{Arrived, Lost, UnderWay};
        let passed = WireFate::Passed { at: Duration::ZERO };
        assert_eq!(fates(&[WireFate::Dropped, passed]), [Lost, Arrived]);
        assert_eq!(fates(&[passed, WireFate::Dropped]), [Arrived, Lost]);
        assert_eq!(fates(&[passed, WireFate::Held]), [Arrived, Lost]);
        // A frame that the wire passed on is not lost: the wire keeps the order.
        assert_eq!(fates(&[passed, passed]), [Arrived, UnderWay]);
        // The wire has not received the second yet.
        assert_eq!(fates(&[passed]), [Arrived, UnderWay]);
    }
}
