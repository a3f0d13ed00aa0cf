//! A packet that the kernel dropped, and why.

use std::fmt;
use std::time::Duration;

use faultlab_net::wire::segment::Header;

/// A packet that the kernel dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// When, on CLOCK_MONOTONIC.
    pub at: Duration,
    /// Why, as in enum skb_drop_reason: `NO_SOCKET`. None where the kernel gave
    /// no reason.
    pub reason: Option<String>,
    /// The kernel's function that dropped it.
    pub function: String,
    /// Its headers, and how much it carried in bytes, where it was a segment.
    pub segment: Option<(Header, usize)>,
    /// The frame that it was where the host last saw it, a position in the capture.
    /// None until the recording is in order, and where no such frame was seen.
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

/// How many packets were dropped for each reason that the kernel gave, as
/// `2 packets: NO_SOCKET in tcp_v4_rcv`: the number and the reason.
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
