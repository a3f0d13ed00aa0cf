//! Whom a link lies between.

use std::collections::HashMap;
use std::time::Duration;

use super::Hop;
use faultlab_net::capture::Capture;

/// Who is at the two sides of a link.
#[derive(Debug)]
pub struct Sides<'a> {
    /// By the position of an end: the host at the other.
    peers: HashMap<usize, &'a str>,
}

impl<'a> Sides<'a> {
    /// Finds out who is at the other end of each link.
    #[must_use]
    pub fn of(capture: &'a Capture, hops: &[Hop]) -> Self {
        let mut peers = HashMap::new();
        for hop in hops {
            if let (Some((left, _)), Some((arrived, _))) = (hop.left, hop.arrived) {
                peers.entry(left).or_insert(capture.ends[arrived].host.as_str());
                peers.entry(arrived).or_insert(capture.ends[left].host.as_str());
            }
        }
        // An interface is named after the node at the other end.
        for (at, end) in capture.ends.iter().enumerate() {
            if let Some(other) = capture.ends.iter().find(|other| other.host == end.interface) {
                peers.entry(at).or_insert(&other.host);
            }
        }
        Self { peers }
    }

    /// From which host to which a packet went, as far as that is known.
    #[must_use]
    pub fn between(&self, capture: &'a Capture, hop: &Hop) -> (Option<&'a str>, Option<&'a str>) {
        let seen = |side: Option<(usize, Duration)>, other: Option<(usize, Duration)>| match (side, other) {
            (Some((end, _)), _) => Some(capture.ends[end].host.as_str()),
            (None, Some((end, _))) => self.peers.get(&end).copied(),
            (None, None) => None,
        };
        (seen(hop.left, hop.arrived), seen(hop.arrived, hop.left))
    }
}
