//! The hosts at the two sides of a link.

use super::Hop;
use faultlab_net::capture::Capture;

/// The sending and the receiving host of a packet, if known. The topology names the
/// host on the other side of the link.
#[must_use]
pub fn between<'a>(capture: &'a Capture, hop: &Hop) -> (Option<&'a str>, Option<&'a str>) {
    let host = |end: usize| capture.ends.get(end).map(|end| end.host.as_str());
    let peer = |end: usize| host(capture.ends.get(end)?.peer?);
    let [left, arrived] = [hop.left, hop.arrived].map(|side| side.map(|(end, _)| end));
    let side = |seen: Option<usize>, other: Option<usize>| match seen {
        Some(end) => host(end),
        None => peer(other?),
    };
    (side(left, arrived), side(arrived, left))
}
