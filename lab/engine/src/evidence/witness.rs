//! Observes a network for captures and explanations, from before an arm begins. Nothing
//! changes but conntrack's logging. Nothing wakes up, unless a capture needs the times
//! of conntrack events.

use std::time::Duration;

use super::counters::Changes;
use super::drops::SharedDrops;
use super::tracker::Tracker;
use super::waits::Waits;
use faultlab_base::error::Result;
use faultlab_model::recording::{HostRecording, Recording};
use faultlab_net::network::firewall::RuleCounter;
use faultlab_net::network::{Host, Network};
use faultlab_net::tap::Tap;
use faultlab_net::topology::rule::Action;
use faultlab_net::wire::all as wires;

/// Observes a network.
#[derive(Debug)]
pub struct Witness {
    tap: Tap,
    /// One for each host; `None` if the host has no rules, or its conntrack cannot be
    /// observed.
    trackers: Vec<Option<Tracker>>,
    waits: Waits,
}

/// The counters of a host.
#[derive(Debug, Default)]
pub struct Counted {
    /// How its counters changed.
    pub changes: Changes,
    /// The counters of its rules.
    pub rules: Vec<RuleCounter>,
}

impl Witness {
    /// Begins to observe; with `timed`, the times of conntrack events are recorded.
    ///
    /// # Errors
    /// If no packet socket can be opened.
    ///
    /// # Panics
    /// If it is timed, outside of a [`LocalSet`](tokio::task::LocalSet).
    pub fn on(network: &Network, timed: bool) -> Result<Self> {
        let tracker = |host: &Host| host.has_rules().then(|| Tracker::of(host, timed).ok()).flatten();
        Ok(Self {
            tap: Tap::on(network.hosts())?,
            trackers: network.hosts().iter().map(tracker).collect(),
            waits: Waits::default(),
        })
    }

    /// Returns when observation has started on every host.
    pub fn ready(&self) {
        self.tap.ready();
    }

    /// The observed waits.
    #[must_use]
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Ends the observation, and returns what was observed until `until`
    /// (CLOCK_MONOTONIC), not yet sorted. `counted` has each host's counters and rules,
    /// `drops` the packets that the kernel dropped.
    ///
    /// # Errors
    /// If the kernel's tables cannot be read.
    pub fn end(
        self,
        network: &Network,
        counted: Vec<Counted>,
        drops: &SharedDrops,
        until: Duration,
    ) -> Result<Recording> {
        let (begun, mut hosts) = (self.tap.begun(), vec![]);
        let mut capture = self.tap.end(network, until)?;
        for ((host, tracker), counted) in network.hosts().iter().zip(self.trackers).zip(counted) {
            let mut recording = HostRecording {
                name: host.name().to_owned(),
                counted: counted.changes.moved().collect(),
                dropped: counted.rules,
                drops: drops.take(host.namespace(), begun)?,
                ..HostRecording::default()
            };
            let drops = |name: &str| {
                let rules = &network.topology().nodes[network.topology().index(host.name())].rules;
                rules.iter().any(|rule| rule.name() == name && *rule.action() == Action::Drop)
            };
            recording.dropped.retain(|counter| counter.packets > 0 && drops(&counter.rule));
            if let Some(tracker) = tracker {
                tracker.end(&mut recording, &mut capture, begun)?;
            }
            hosts.push(recording);
            wires::carry();
        }
        capture.tracked.retain(|tracked| tracked.at <= capture.until);
        let (waits, kernel) = self.waits.end();
        Ok(Recording { capture, begun, hosts, waits, kernel, ..Recording::default() })
    }
}
