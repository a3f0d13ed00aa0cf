//! The frames on every interface of a network, as tcpdump would capture them.
//!
//! Each namespace has a packet socket. Its ring is read when the arm has ended,
//! so that no frame wakes a thread. A full ring drops further frames, and the
//! capture counts them.

mod host_capture;

use std::time::Duration;

use self::host_capture::HostCapture;
use crate::capture::{Capture, End, Frame};
use crate::network::{Host, Network};
use crate::packet::clock::{now, wall_offset};
use crate::topology::{self, Topology};
use crate::wire::all as wires;
use faultlab_base::error::{Error, Result};

/// How much the wall clock may be slewed during a capture: 500 ppm for minutes.
const SLEWED: Duration = Duration::from_millis(250);

/// A running capture of a network.
#[derive(Debug)]
pub struct Tap {
    begun: Duration,
    /// The offset of the wall clock, which timestamps frames, at the start.
    wall_offset: Duration,
    hosts: Vec<HostCapture>,
}

impl Tap {
    /// Starts to capture at these hosts.
    ///
    /// # Errors
    /// If no packet socket can be opened.
    pub fn on(hosts: &[Host]) -> Result<Self> {
        let hosts = hosts.iter().map(|host| HostCapture::begin(host.namespace())).collect::<Result<_>>()?;
        Ok(Self { begun: now(), wall_offset: wall_offset(), hosts })
    }

    /// When it began, on the kernel's clock.
    #[must_use]
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// Returns once the capture runs at every host: every frame sent later is
    /// captured.
    pub fn ready(&self) {
        self.hosts.iter().for_each(HostCapture::ready);
    }

    /// Ends the capture. Frames after `until`, on the kernel's clock, belong to
    /// the teardown of the arm and are not kept. The frames of each host are
    /// contiguous.
    ///
    /// # Errors
    /// If a socket does not answer, or the wall clock was set during the capture.
    pub fn end(self, network: &Network, until: Duration) -> Result<Capture> {
        let mut capture = Capture { until: until.saturating_sub(self.begun), ..Capture::default() };
        let wall_offset = wall_offset();
        if wall_offset.abs_diff(self.wall_offset) > SLEWED {
            return Err(Error::Lab(
                "the wall clock was set during the capture, and frames are stamped with it".into(),
            ));
        }
        self.hosts.iter().for_each(|captured| captured.start_reading(wall_offset));
        for (host, captured) in network.hosts().iter().zip(self.hosts) {
            let first = capture.ends.len();
            let end = |name: &str, addresses| End {
                host: host.name().into(),
                interface: name.into(),
                addresses,
                peer: None,
            };
            capture.ends.extend(host.interfaces().iter().map(|i| end(&i.name, i.addresses.clone())));
            let mut others: Vec<u32> = vec![];
            let captured = captured.end()?;
            for frame in captured.frames {
                let known = host.interfaces().iter().position(|i| i.index == frame.interface);
                let at = known.unwrap_or_else(|| {
                    // The loopback, or an interface that was created later.
                    let before = host.interfaces().len();
                    before
                        + others.iter().position(|&i| i == frame.interface).unwrap_or_else(|| {
                            let name = if frame.interface == 1 {
                                "lo".to_owned()
                            } else {
                                format!("if{}", frame.interface)
                            };
                            capture.ends.push(end(&name, vec![]));
                            others.push(frame.interface);
                            others.len() - 1
                        })
                });
                capture.frames.push(Frame {
                    at: frame.at.saturating_sub(self.begun),
                    end: first + at,
                    outgoing: frame.outgoing,
                    length: frame.length,
                    bytes: frame.bytes,
                    comment: None,
                    carried: None,
                });
            }
            capture.lost += captured.lost;
            wires::carry();
        }
        capture.frames.retain(|frame| frame.at <= capture.until);
        join(&mut capture.ends, network.topology());
        Ok(capture)
    }
}

/// Connects the two ends of each link.
fn join(ends: &mut [End], topology: &Topology) {
    for link in &topology.links {
        let [one, other] = [0, 1].map(|side| {
            let topology::End { node, interface, .. } = &link.ends[side];
            let host = &topology.nodes[*node].name;
            ends.iter().position(|end| end.host == *host && end.interface == *interface)
        });
        for (end, peer) in [(one, other), (other, one)] {
            if let Some(end) = end {
                ends[end].peer = peer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_know_each_other_by_the_topology_and_not_by_their_names() {
        let mut topology = Topology::new().hosts(["a", "b", "c"]).link("a", "b").link("b", "c");
        // Its name suggests another neighbour.
        topology.links[0].ends[0].interface = "c".into();
        let end = |host: &str, interface: &str| End {
            host: host.into(),
            interface: interface.into(),
            addresses: vec![],
            peer: None,
        };
        let mut ends =
            [end("a", "c"), end("a", "lo"), end("b", "a"), end("b", "c"), end("c", "b"), end("c", "if9")];
        join(&mut ends, &topology);
        assert_eq!(ends.map(|end| end.peer), [Some(2), None, Some(0), Some(4), Some(3), None]);
    }
}
