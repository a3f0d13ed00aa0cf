//! A packet that the kernel dropped, and why.

use std::fmt;
use std::time::Duration;

use faultlab_net::wire::segment::Header;

/// A packet that the kernel dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// When, in CLOCK_MONOTONIC time.
    pub at: Duration,
    /// The reason, as in enum skb_drop_reason: `NO_SOCKET`. `None` if the kernel gave
    /// no reason.
    pub reason: Option<String>,
    /// The kernel function that dropped it.
    pub function: String,
    /// For a segment, its headers and the length of its payload in bytes.
    pub segment: Option<(Header, usize)>,
    /// The last frame of the packet captured at the host, as a position in the
    /// capture. `None` until the recording is arranged, and if there is no such
    /// frame.
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

/// How many packets were dropped for each reason given by the kernel, as `2 packets:
/// NO_SOCKET in tcp_v4_rcv`: the number and the reason.
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
