//! When TCP keepalive sends probes and when it gives up.
//!
//! net/ipv4/tcp_timer.c: tcp_keepalive_timer. The kernel sends the first probe
//! after `time` of silence, and another every `intvl`. After `probes` without
//! an answer the error is ETIMEDOUT. With TCP_USER_TIMEOUT, the connection ends
//! at the first probe after that time.

use std::time::Duration;

use lab::scenario::Environment;
use lab::wire::{Direction, Fate, Wire};

/// The three numbers of TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveSchedule {
    /// tcp_keepalive_time.
    pub time: Duration,
    /// tcp_keepalive_intvl.
    pub intvl: Duration,
    /// tcp_keepalive_probes.
    pub probes: u32,
}

impl KeepaliveSchedule {
    /// The settings `time`, `intvl` and `probes`, each with the given prefix.
    ///
    /// # Panics
    /// If the scenario has no such settings.
    #[must_use]
    pub fn new(env: &Environment, prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}{name}");
        Self {
            time: env.seconds(&key("time")),
            intvl: env.seconds(&key("intvl")),
            // include/net/tcp.h: MAX_TCP_KEEPCNT is 127.
            probes: u32::try_from(env.number(&key("probes"))).unwrap_or(127),
        }
    }

    /// The number of intervals between the first probe and giving up on a silent
    /// peer.
    #[must_use]
    pub fn intervals(&self, user_timeout: Option<Duration>) -> u32 {
        let Some(timeout) = user_timeout else { return self.probes };
        let (beyond, intvl) = (timeout.saturating_sub(self.time).as_secs(), self.intvl.as_secs().max(1));
        u32::try_from(beyond.div_ceil(intvl).max(1)).unwrap_or(u32::MAX)
    }

    /// When a probe is sent; 0 is the first.
    #[must_use]
    pub fn at(&self, probe: u32) -> Duration {
        self.time + probe * self.intvl
    }

    /// When a probe has certainly been sent: timers may be late, by up to an eighth
    /// (kernel/time/timer.c), but never early.
    #[must_use]
    pub fn at_latest(&self, probe: u32) -> Duration {
        self.at(probe) + self.at(probe) / 8 + self.intvl
    }

    /// Whether an event after this time coincides with the given probe.
    #[must_use]
    pub fn is(&self, probe: u32, after: Duration) -> bool {
        after + Duration::from_millis(100) >= self.at(probe) && after < self.at_latest(probe)
    }
}

/// How many keepalive probes crossed a wire in one direction, and whether any
/// was forwarded.
///
/// net/ipv4/tcp_output.c, tcp_xmit_probe_skb: a probe is empty, and its
/// sequence number is one below that of the next byte.
pub async fn probes(wire: &Wire, direction: Direction) -> (usize, bool) {
    wire.caught_up().await;
    let frames = wire.frames();
    let sent = || frames.iter().filter(|f| f.direction == direction);
    let next = sent().filter_map(|f| Some(f.header?.seq.wrapping_add(u32::try_from(f.length).ok()?))).max();
    let probes: Vec<_> = sent()
        .filter(|f| f.length == 0 && f.header.is_some_and(|h| Some(h.seq.wrapping_add(1)) == next))
        .collect();
    (probes.len(), probes.iter().any(|f| matches!(f.fate, Fate::Passed { .. })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_defaults_end_after_7875_s() {
        let seconds = Duration::from_secs;
        let schedule = KeepaliveSchedule { time: seconds(7200), intvl: seconds(75), probes: 9 };
        assert_eq!(schedule.at(schedule.intervals(None)), seconds(7875));
        assert!(
            schedule.is(9, seconds(7876)) && !schedule.is(9, seconds(7800)) && !schedule.is(9, seconds(9000))
        );
        // The first probe after the timeout, and at least one interval.
        assert_eq!(schedule.intervals(Some(seconds(7201))), 1);
        assert_eq!(schedule.intervals(Some(seconds(7276))), 2);
        assert_eq!(schedule.intervals(Some(seconds(1))), 1);
    }
}
