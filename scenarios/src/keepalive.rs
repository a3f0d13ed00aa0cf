//! The common parts of the keepalive scenarios.

use lab::prelude::*;

use crate::actors::KeepaliveSchedule;

/// The keepalive sysctls of a host, from the settings.
pub fn kernel_values(network: Topology, host: &str, env: &Environment) -> Topology {
    ["time", "intvl", "probes"].into_iter().fold(network, |network, key| {
        network.sysctl(host, &format!("net.ipv4.tcp_keepalive_{key}"), env.number(key))
    })
}

/// Why a keepalive that begins after `time` does not refresh a flow in time.
pub fn too_slow(time: Duration, timeout: Duration) -> String {
    format!("a keepalive of {} s is too slow for a timeout of {} s", time.as_secs(), timeout.as_secs())
}

/// The rule that explains the time of a timeout, or the time itself if no rule
/// does.
pub fn rule(
    schedule: KeepaliveSchedule,
    met: Answer,
    after: Duration,
    user_timeout: Option<Duration>,
) -> String {
    let intervals = schedule.intervals(user_timeout);
    let nominal = schedule.at(intervals).as_secs();
    match met {
        Answer::TimedOut if schedule.is(intervals, after) => {
            format!("{nominal} s = {} + {intervals} x {}", schedule.time.as_secs(), schedule.intvl.as_secs())
        }
        Answer::TimedOut => format!("{:.1} s, not {nominal}", after.as_secs_f32()),
        _ => "-".to_owned(),
    }
}

/// The result of a connection, and the keepalive probe that ended it.
pub fn probe(schedule: KeepaliveSchedule, met: Answer, after: Duration) -> String {
    let (time, intvl) = (schedule.time.as_secs(), schedule.intvl.as_secs());
    match met {
        Answer::Nothing | Answer::Received => "open".to_owned(),
        Answer::Reset if schedule.is(0, after) => format!("reset after {time} s, by its first probe"),
        Answer::TimedOut if schedule.is(schedule.probes, after) => {
            format!("ETIMEDOUT after {time} + {} x {intvl} s", schedule.probes)
        }
        other => other.to_string(),
    }
}
