//! What looks on at a network for the sake of captures and explanations, from
//! before an arm begins. It wakes nobody, and alters nothing but conntrack's
//! logging.

use std::time::Duration;

use super::conntrack::{Conntrack, Events, Stats};
use super::counters::Changes;
use super::drops::{SharedDrops, mark};
use super::invalid::Remarks;
use super::tap::Tap;
use super::traces::{HostTraces, Traces};
use super::waits::Waits;
use crate::error::Result;
use crate::network::firewall::RuleCounter;
use crate::network::{Host, Network};
use crate::topology::rule::Action;

/// What looks on at a network.
#[derive(Debug)]
pub struct Witness {
    tap: Tap,
    /// By host; none where there is no conntrack, or nothing is to be explained.
    trackers: Vec<Option<Tracker>>,
    waits: Waits,
}

/// What a host has counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// How its counters changed.
    pub changes: Changes,
    /// What its rules counted.
    pub rules: Vec<RuleCounter>,
}

/// What looks on at the conntrack of a host.
#[derive(Debug)]
struct Tracker {
    conntrack: Conntrack,
    before: Stats,
    events: Events,
    /// None where the kernel has no nfnetlink_log.
    remarks: Option<Remarks>,
}

impl Witness {
    /// Looks on from now on: at the frames, and where all is to be explained
    /// also at conntrack.
    ///
    /// # Errors
    /// Where no packet socket can be had.
    pub fn on(network: &Network, explains: bool) -> Result<Self> {
        let tracker =
            |host: &Host| (explains && has_rules(network, host)).then(|| Tracker::of(host).ok()).flatten();
        Ok(Self {
            tap: Tap::on(network.hosts())?,
            trackers: network.hosts().iter().map(tracker).collect(),
            waits: Waits::default(),
        })
    }

    /// What it sees of waits.
    #[must_use]
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// What was seen until `until`, of the kernel's clock. `counted` is what each
    /// host's counters and rules say, `drops` what the kernel does.
    ///
    /// # Errors
    /// Where the kernel's tables cannot be read.
    pub fn end(
        self,
        network: &Network,
        counted: Vec<Counted>,
        drops: &SharedDrops,
        until: Duration,
    ) -> Result<Traces> {
        let (begun, mut hosts) = (self.tap.begun(), vec![]);
        for ((host, tracker), counted) in network.hosts().iter().zip(self.trackers).zip(counted) {
            let mut traces = HostTraces {
                name: host.name().to_owned(),
                counted: counted.changes.moved().collect(),
                drops: drops.take(host.namespace())?,
                ..HostTraces::default()
            };
            if let Some(mut tracker) = tracker {
                traces.conntrack = Stats::changes(&tracker.before, &tracker.conntrack.stats()?);
                traces.events = tracker.events.take()?;
                traces.remarks = tracker.remarks.map_or(Ok(vec![]), |remarks| remarks.take())?;
                let drops = |name: &str| {
                    let rules = &network.topology().nodes[network.topology().index(host.name())].rules;
                    rules.iter().any(|rule| rule.name() == name && *rule.action() == Action::Drop)
                };
                traces.dropped = counted.rules;
                traces.dropped.retain(|counter| counter.packets > 0 && drops(&counter.rule));
            }
            hosts.push(traces);
        }
        let (waits, kernel) = self.waits.end();
        let mut capture = self.tap.end(network.hosts(), until)?;
        mark::frames(
            &mut capture,
            begun,
            hosts.iter().map(|host| (host.name.as_str(), host.drops.as_slice())),
        );
        Ok(Traces { capture, hosts, waits, kernel, ..Traces::default() })
    }
}

fn has_rules(network: &Network, host: &Host) -> bool {
    !network.topology().nodes[network.topology().index(host.name())].rules.is_empty()
}

impl Tracker {
    fn of(host: &Host) -> Result<Self> {
        let conntrack = Conntrack::of(host.namespace())?;
        Ok(Self {
            before: conntrack.stats()?,
            conntrack,
            events: Events::listen(host.namespace())?,
            remarks: Remarks::listen(host.namespace()).ok(),
        })
    }
}
