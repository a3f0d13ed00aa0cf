//! Hosts that sent no keepalive probe, although they sent some in the control.

use std::time::Duration;

use super::{Arm, Finding, Rank, seconds};

/// The counter of keepalive probes.
const PROBES_SENT: &str = "TCPKeepAlive";

/// Hosts that sent no keepalive probe, but sent some in the control.
pub(super) fn no_keepalive(arm: &Arm<'_>) -> Vec<Finding> {
    let Some(control) = arm.control else { return vec![] };
    let Some((from, silence)) = longest(arm) else { return vec![] };
    let quiet =
        |host: &&str| control.counted(host, PROBES_SENT) > 0 && arm.recording.counted(host, PROBES_SENT) == 0;
    let hosts = arm.recording.hosts.iter().map(|host| host.name.as_str()).filter(quiet);
    let told = hosts.map(|host| {
        let text = format!(
            "nothing was sent for {}, and {host} sent no keepalive probe ({PROBES_SENT} +0; +{} in the control)",
            seconds(silence),
            control.counted(host, PROBES_SENT),
        );
        Finding::new(Rank::Silence, from, format!("no keepalive probe of {host}"), text)
    });
    told.collect()
}

/// When the longest period without a segment began, and how long it was.
fn longest(arm: &Arm<'_>) -> Option<(Duration, Duration)> {
    let times = arm.journeys.evidence().map(|journey| journey.first().at);
    let mut times: Vec<_> = times.chain([arm.journeys.decided]).collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
    gaps.max_by_key(|(_, gap)| *gap)
}
