//! Marks, in a capture, the frames that the kernel dropped, each with its reason.

use std::collections::HashMap;
use std::time::Duration;

use crate::hops::{Packet, Payload};
use faultlab_model::recording::Recording;
use faultlab_net::wire::segment::Numbers;

/// How far the time of a frame and the time of its drop may differ.
const CLOCKS: Duration = Duration::from_millis(1);

/// Finds the frame of each segment that a host dropped: the last matching frame
/// captured at the host before the drop. The frame gets the reason, if the kernel gave
/// one.
pub fn join(recording: &mut Recording) {
    let Recording { capture, begun, hosts, .. } = recording;
    let mut seen: HashMap<(&str, Numbers), Vec<usize>> = HashMap::new();
    for (number, frame) in capture.frames.iter().enumerate() {
        if let Some(Payload::Tcp(header, length)) = Packet::read(frame).map(|packet| packet.what) {
            let host = capture.ends[frame.end].host.as_str();
            seen.entry((host, header.numbers(length))).or_default().push(number);
        }
    }
    let mut comments = vec![];
    for host in hosts {
        for dropped in &mut host.drops {
            let Some((header, length)) = dropped.segment else { continue };
            let at = dropped.at.saturating_sub(*begun) + CLOCKS;
            let alike = seen.get(&(host.name.as_str(), header.numbers(length)));
            let last = alike.and_then(|frames| frames.iter().rfind(|&&n| capture.frames[n].at <= at));
            dropped.frame = last.copied();
            // A packet freed without a reason may have been delivered.
            if let (Some(frame), Some(_)) = (dropped.frame, &dropped.reason) {
                comments.push((frame, format!("dropped by {}: {dropped}", host.name)));
            }
        }
    }
    for (number, comment) in comments {
        capture.frames[number].comment.get_or_insert(comment.into());
    }
}
