//! Packets that the kernel dropped, from the tracepoint skb:kfree_skb.

use std::fmt;
use std::time::Duration;

use faultlab_net::wire::segment::Header;

/// A packet that the kernel dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The CLOCK_MONOTONIC time of the drop.
    pub at: Duration,
    /// The reason, as in enum skb_drop_reason: `NO_SOCKET`. `None` if the kernel does not
    /// specify one.
    pub reason: Option<String>,
    /// The kernel function that dropped it.
    pub function: String,
    /// The headers and the payload length, in bytes, of a TCP segment; `None` for any
    /// other packet.
    pub segment: Option<(Header, usize)>,
    /// The last frame of the packet that was captured at the host: an index into the
    /// capture's frames. `None` if there is none, or before `explain::arrange` sets it.
    pub frame: Option<usize>,
}

/// `NO_SOCKET in tcp_v4_rcv`, or `in tcp_v4_rcv, no reason given`.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{reason} in {}", self.function),
            None => write!(f, "in {}, no reason given", self.function),
        }
    }
}

/// The number of drops for each reason and function, as `(2, "NO_SOCKET in
/// tcp_v4_rcv")`. Drops without a reason are not counted.
#[must_use]
pub fn tally<'a>(drops: impl IntoIterator<Item = &'a Dropped>) -> Vec<(usize, String)> {
    let mut tally: Vec<(usize, String)> = vec![];
    for dropped in drops.into_iter().filter(|dropped| dropped.reason.is_some()) {
        let text = dropped.to_string();
        match tally.iter_mut().find(|(_, known)| *known == text) {
            Some((count, _)) => *count += 1,
            None => tally.push((1, text)),
        }
    }
    tally
}
