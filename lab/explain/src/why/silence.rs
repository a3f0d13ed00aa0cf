//! Idle connections that no keepalive probe checked, although the control had some.

use std::time::Duration;

use super::{Arm, Finding, Rank, seconds};

/// The counter of keepalive probes.
const ASKED: &str = "TCPKeepAlive";

/// Hosts that sent no keepalive probe, but sent some in the control.
pub(super) fn not_asked(arm: &Arm<'_>) -> Vec<Finding> {
    let Some(control) = arm.control else { return vec![] };
    let Some((from, silence)) = longest(arm) else { return vec![] };
    let quiet = |host: &&str| control.counted(host, ASKED) > 0 && arm.recording.counted(host, ASKED) == 0;
    let hosts = arm.recording.hosts.iter().map(|host| host.name.as_str()).filter(quiet);
    let told = hosts.map(|host| {
        let text = format!(
            "nothing was sent for {}, and {host} asked after no connection: {ASKED} did not move, in the control \
             {ASKED} +{}",
            seconds(silence),
            control.counted(host, ASKED),
        );
        Finding::new(Rank::Silence, from, format!("{host} did not ask"), text)
    });
    told.collect()
}

/// When the longest period without a segment began, and how long it was.
fn longest(arm: &Arm<'_>) -> Option<(Duration, Duration)> {
    let times = arm.journeys.all.iter().map(|journey| journey.first().at);
    let mut times: Vec<_> = times.chain([arm.journeys.until]).collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
    gaps.max_by_key(|(_, gap)| *gap)
}
