//! The observations of an arm as values: the input of an explanation.

mod dropped;
mod invalid;
mod task;
mod wait;

use std::time::Duration;

use faultlab_net::capture::Capture;
use faultlab_net::conntrack::{Change, Event};
use faultlab_net::network::firewall::RuleCounter;
use faultlab_net::wire::Record;

pub use dropped::{Dropped, tally};
pub use invalid::InvalidLog;
pub use task::Task;
pub use wait::Wait;

/// All observations of an arm.
#[derive(Debug, Default)]
pub struct Recording {
    /// The frames.
    pub capture: Capture,
    /// When the capture began, in CLOCK_MONOTONIC time.
    pub begun: Duration,
    /// The counters and the tables of each host.
    pub hosts: Vec<HostRecording>,
    /// The counters and records of each wire.
    pub wires: Vec<WireRecording>,
    /// The kernel's log messages while the arm ran, without duplicates. The log is not per
    /// namespace: only a message that names a device of this arm is certainly about it.
    pub log: Vec<String>,
    /// The waits of the lab, as last observed.
    pub waits: Vec<Wait>,
    /// Kernel threads that were in an uninterruptible sleep during the arm.
    pub kernel: Vec<Task>,
}

/// The observations of a host.
#[derive(Debug, Default)]
pub struct HostRecording {
    /// Its name.
    pub name: String,
    /// The counters that changed, each with the difference.
    pub counted: Vec<(String, i64)>,
    /// The conntrack counters that changed.
    pub conntrack: Vec<Change>,
    /// The counters of its nf_tables rules that drop packets.
    pub dropped: Vec<RuleCounter>,
    /// The events of conntrack entries, with their CLOCK_MONOTONIC time if it was
    /// recorded.
    pub events: Vec<(Option<Duration>, Event)>,
    /// The segments that conntrack logged.
    pub invalid_logs: Vec<InvalidLog>,
    /// The packets that the kernel dropped there (skb:kfree_skb).
    pub drops: Vec<Dropped>,
}

/// The observations of a wire.
#[derive(Debug, Default)]
pub struct WireRecording {
    /// The hosts at its ends.
    pub ends: [String; 2],
    /// The counters of its policy, by name.
    pub counted: Vec<(&'static str, u64)>,
    /// The interfaces at its ends; `None` if the records do not cover every frame.
    pub interfaces: Option<[String; 2]>,
    /// What it did with each frame; empty once that is noted in the capture.
    pub records: Vec<Record>,
}

impl Recording {
    /// The change of a counter of a host; 0 if it did not change.
    #[must_use]
    pub fn counted(&self, host: &str, counter: &str) -> i64 {
        let moved = self.host(host).into_iter().flat_map(|host| &host.counted);
        moved.into_iter().find(|(name, _)| name == counter).map_or(0, |(_, by)| *by)
    }

    /// The observations of the host of this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostRecording> {
        self.hosts.iter().find(|host| host.name == name)
    }
}
