//! The common parts of the keepalive scenarios.

use lab::prelude::*;

use crate::actors::KeepaliveSchedule;

/// The keepalive sysctls of a host, from the settings.
pub fn kernel_values(network: Topology, host: &str, env: &Environment) -> Topology {
    ["time", "intvl", "probes"].into_iter().fold(network, |network, key| {
        network.sysctl(host, &format!("net.ipv4.tcp_keepalive_{key}"), env.number(key))
    })
}

/// Why a keepalive that begins after `time` does not refresh a flow before its
/// timeout.
pub fn too_slow(time: Duration, timeout: Duration) -> String {
    format!("a keepalive of {} s is too slow for a timeout of {} s", time.as_secs(), timeout.as_secs())
}

/// The cell that explains when a connection timed out: time + probes x intvl,
/// or the measured time if that does not match.
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

/// The cell for a connection: its result, and the keepalive probe that ended
/// it.
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
