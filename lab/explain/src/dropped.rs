//! The frames of a capture that the kernel dropped, marked with why.

use std::collections::HashMap;
use std::time::Duration;

use crate::hops::{Packet, What};
use faultlab_model::recording::Dropped;
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::Numbers;

/// Says of each frame that a host has dropped why, beside the last one like it
/// that the host had seen until then. The capture began at `begun`, of
/// CLOCK_MONOTONIC.
pub fn frames<'a>(
    capture: &mut Capture,
    begun: Duration,
    drops: impl Iterator<Item = (&'a str, &'a [Dropped])>,
) {
    let mut seen: HashMap<(&str, Numbers), Vec<usize>> = HashMap::new();
    for (number, frame) in capture.frames.iter().enumerate() {
        if let Some(What::Tcp(header, length)) = Packet::read(frame).map(|packet| packet.what) {
            let host = capture.ends[frame.end].host.as_str();
            seen.entry((host, header.numbers(length))).or_default().push(number);
        }
    }
    let mut comments = vec![];
    for (host, dropped) in drops.flat_map(|(host, drops)| drops.iter().map(move |dropped| (host, dropped))) {
        // What is freed without a reason may have been of use.
        let (Some((header, length)), Some(_)) = (dropped.segment, &dropped.reason) else { continue };
        let at = dropped.at.saturating_sub(begun);
        let alike = seen.get(&(host, header.numbers(length)));
        let last = alike.and_then(|frames| frames.iter().rfind(|&&n| capture.frames[n].at <= at));
        comments.extend(last.map(|&number| (number, format!("dropped by {host}: {dropped}"))));
    }
    for (number, comment) in comments {
        capture.frames[number].comment.get_or_insert(comment);
    }
}
