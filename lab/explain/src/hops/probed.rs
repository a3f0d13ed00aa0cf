//! Which packets belong to the probes.

use std::time::Duration;

use super::{Hop, Payload};
use faultlab_net::capture::{Act, Capture, Probe};

/// The maximum error of a frame's time, which is converted to the clock of the probes.
const SLACK: Duration = Duration::from_millis(1);

/// The packet of a probe.
#[derive(Debug)]
pub struct Probed<'a> {
    /// The probe.
    pub probe: &'a Probe,
    /// The hop of its packet, as a position among all.
    pub hop: usize,
    /// The frame of that packet at the probe's host, as a position in
    /// [`Capture::frames`].
    pub frame: usize,
}

/// Finds the packet of each probe of a capture, if there is one, in the order of the
/// probes: the SYN of a connect, the first new bytes of a send, the SYN of the
/// connection on which a receive waits.
#[must_use]
pub fn probed<'a>(capture: &'a Capture, hops: &[Hop]) -> Vec<Probed<'a>> {
    let at_host = |end: usize, probe: &Probe| capture.ends[end].host == probe.host;
    let is_it = |probe: &Probe, hop: &Hop| {
        let Payload::Tcp(header, length) = &hop.packet.what else { return None };
        let sent = hop.left.filter(|(end, _)| at_host(*end, probe));
        let arrived = hop.arrived.filter(|(end, _)| at_host(*end, probe));
        let (own, peer, frame) = match (sent, arrived) {
            (Some(_), _) => (header.src, header.dst, hop.frames[0]),
            (None, Some(_)) if probe.act == Act::Waits => (header.dst, header.src, hop.frames[1]),
            _ => return None,
        };
        let theirs = (Some(own), peer) == (probe.local, probe.remote);
        let shows = match probe.act {
            Act::Connects | Act::Asks | Act::Waits => header.flags.opens(),
            Act::Speaks => *length > 0 && hop.at() + SLACK >= probe.at,
        };
        frame.filter(|_| theirs && shows && hop.first.is_none())
    };
    let shown = |probe: &'a Probe| {
        let mut found =
            hops.iter().enumerate().filter_map(|(hop, packet)| Some((hop, is_it(probe, packet)?)));
        found.next().map(|(hop, frame)| Probed { probe, hop, frame })
    };
    capture.probes.iter().filter_map(shown).collect()
}
