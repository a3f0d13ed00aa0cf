//! All that was seen of an arm, as values: what an explanation is made of.

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

/// What was seen of an arm.
#[derive(Debug, Default)]
pub struct Recording {
    /// The frames.
    pub capture: Capture,
    /// When they began to be seen, of CLOCK_MONOTONIC.
    pub begun: Duration,
    /// What each host counted and remembered.
    pub hosts: Vec<HostRecording>,
    /// What wires counted in a kernel's place.
    pub wires: Vec<WireRecording>,
    /// The kernel's own complaints of that time, each once. Only of those about a
    /// device is it known that they are of this arm.
    pub log: Vec<String>,
    /// What was waited for, as it was when it was last looked at.
    pub waits: Vec<Wait>,
    /// The kernel's own tasks that were in an uninterruptible sleep meanwhile.
    pub kernel: Vec<Task>,
}

/// What was seen of a host.
#[derive(Debug, Default)]
pub struct HostRecording {
    /// Its name.
    pub name: String,
    /// The counters that moved.
    pub counted: Vec<(String, i64)>,
    /// conntrack's counters that moved.
    pub conntrack: Vec<Change>,
    /// What its rules counted that drop packets.
    pub dropped: Vec<RuleCounter>,
    /// What happened to conntrack's entries, and when, of CLOCK_MONOTONIC, where
    /// that was noted.
    pub events: Vec<(Option<Duration>, Event)>,
    /// What conntrack said of segments.
    pub invalid_logs: Vec<InvalidLog>,
    /// The packets that the kernel dropped there.
    pub drops: Vec<Dropped>,
}

/// What was seen of a wire.
#[derive(Debug, Default)]
pub struct WireRecording {
    /// The hosts at its ends.
    pub ends: [String; 2],
    /// What its policy counted, by the counter's name.
    pub counted: Vec<(&'static str, u64)>,
    /// The interfaces at its ends, where the records tell of every frame.
    pub interfaces: Option<[String; 2]>,
    /// Its records, until a capture is marked with them.
    pub records: Vec<Record>,
}

impl Recording {
    /// By how much a counter of a host moved.
    #[must_use]
    pub fn counted(&self, host: &str, counter: &str) -> i64 {
        let moved = self.host(host).into_iter().flat_map(|host| &host.counted);
        moved.into_iter().find(|(name, _)| name == counter).map_or(0, |(_, by)| *by)
    }

    /// What was seen of a host.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostRecording> {
        self.hosts.iter().find(|host| host.name == name)
    }
}
