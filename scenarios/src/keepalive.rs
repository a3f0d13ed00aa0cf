//! What the keepalive scenarios have in common.

use lab::prelude::*;
use lab::probe::Ladder;

/// The kernel's values of a host, from the settings.
pub fn kernel_values(network: Topology, host: &str, ground: &Ground) -> Topology {
    ["time", "intvl", "probes"].into_iter().fold(network, |network, key| {
        network.sysctl(host, &format!("net.ipv4.tcp_keepalive_{key}"), ground.number(key))
    })
}

/// The rule that a time-out follows, or when it came where it follows none.
pub fn rule(ladder: Ladder, met: Answer, after: Duration, user_timeout: Option<Duration>) -> String {
    let rungs = ladder.rungs(user_timeout);
    let nominal = ladder.at(rungs).as_secs();
    match met {
        Answer::TimedOut if ladder.is(rungs, after) => {
            format!("{nominal} s = {} + {rungs} x {}", ladder.time.as_secs(), ladder.intvl.as_secs())
        }
        Answer::TimedOut => format!("{:.1} s, not {nominal}", after.as_secs_f32()),
        _ => "-".to_owned(),
    }
}

/// What a connection met, and which of its probes met it.
pub fn probe(ladder: Ladder, met: Answer, after: Duration) -> String {
    let (time, intvl) = (ladder.time.as_secs(), ladder.intvl.as_secs());
    match met {
        Answer::Nothing | Answer::Received => "open".to_owned(),
        Answer::Reset if ladder.is(0, after) => format!("reset after {time} s, by its first probe"),
        Answer::TimedOut if ladder.is(ladder.probes, after) => {
            format!("ETIMEDOUT after {time} + {} x {intvl} s", ladder.probes)
        }
        other => other.to_string(),
    }
}
