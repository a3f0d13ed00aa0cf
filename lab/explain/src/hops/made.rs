//! Frames for tests: a segment on a link, captured at both ends or at one.

use std::time::Duration;

use faultlab_net::capture::{End, Frame};
use faultlab_net::wire::segment::{Flags, Header, Macs, Segment, Timestamps};

/// The headers of a segment from one address to another.
#[must_use]
pub fn header(way: [&str; 2], flags: Flags, seq: u32, tsval: u32) -> Header {
    let [src, dst] = way.map(|address| address.parse().unwrap());
    let timestamps = Some(Timestamps { tsval, tsecr: 0 });
    Header { src, dst, seq, ack: 0, flags, window: 1, timestamps }
}

/// Pairs the ends of links: 0 and 1 are the ends of one link, 2 and 3 of the next, and
/// so on.
#[must_use]
pub fn linked(mut ends: Vec<End>) -> Vec<End> {
    let count = ends.len();
    for (number, end) in ends.iter_mut().enumerate() {
        end.peer = Some(number ^ 1).filter(|peer| *peer < count);
    }
    ends
}

/// A segment that leaves one end of a link after `at` milliseconds and arrives at the
/// other a millisecond later; either half may be missing. Ends 0 and 1 belong to one
/// link, 2 and 3 to the next, and so on.
#[must_use]
pub fn crossing(
    at: u64,
    from: Option<usize>,
    to: Option<usize>,
    header: Header,
    payload: &[u8],
) -> Vec<Frame> {
    let [left, arrives] = [from.or(to.map(|to| to ^ 1)).unwrap(), to.or(from.map(|from| from ^ 1)).unwrap()];
    let mac = |end: usize| [2, 0, 0, 0, 0, u8::try_from(end).unwrap()];
    let bytes = Segment { header, payload }.frame(Macs { src: mac(left), dst: mac(arrives) }).unwrap();
    let frame = |end: usize, after: u64, outgoing| Frame {
        at: Duration::from_millis(at + after),
        end,
        outgoing,
        length: u32::try_from(bytes.len()).unwrap(),
        bytes: bytes.clone(),
        comment: None,
        carried: None,
    };
    from.map(|end| frame(end, 0, true)).into_iter().chain(to.map(|end| frame(end, 1, false))).collect()
}
