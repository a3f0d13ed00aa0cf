//! The end of an arm: the final contents of the kernel's tables, and all observations.

use std::time::Duration;

use super::ArmRun;
use crate::evidence::sockets::sockets;
use crate::evidence::witness::{Counted, Witness};
use faultlab_base::error::Result;
use faultlab_base::text::Line;
use faultlab_model::outcome::{ArmOutcome, Map};
use faultlab_model::recording::{Recording, WireRecording, tally};
use faultlab_net::conntrack::Conntrack;
use faultlab_net::network::{Host, ring};
use faultlab_net::topology::Kind;
use faultlab_net::wire::all as wires;

impl ArmRun<'_> {
    /// Ends the arm: reads the kernel's tables, and returns all observations, with
    /// the recording if there is a witness. A failed witness does not change the
    /// outcome.
    ///
    /// # Errors
    /// If evidence cannot be read, or a wire lost a frame that its policy did not
    /// drop.
    pub fn finish(mut self) -> Result<(ArmOutcome, Option<Recording>)> {
        let ended = ring::now();
        let (mut evidence, counted) = self.tables()?;
        self.check_wires()?;
        let seen_by = |witness: Result<Witness>| {
            witness?.end(&self.stage.network, counted, &self.stage.reports.drops, ended)
        };
        let (mut recording, capture_gap) = match self.stage.witness.take().map(seen_by) {
            None => (None, None),
            Some(Ok(recording)) => {
                let lost = recording.capture.lost;
                (Some(recording), (lost > 0).then(|| format!("{lost} frames, for which there was no room")))
            }
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        if let Some(recording) = &mut recording {
            self.complete(recording, ended)?;
            for host in &recording.hosts {
                let lines = tally(&host.drops).into_iter();
                let lines = lines.map(|(count, reason)| format!("dropped by the kernel: {count} x {reason}"));
                evidence.extend(&host.name, lines);
            }
        }
        // Wires end before their network does.
        self.stage.wires.take();
        let seen = self.stage.seen.take();
        let arm = self.arm();
        let outcome = ArmOutcome {
            change: arm.change.into(),
            observations: seen.observations,
            unobserved: seen.unobserved,
            because: seen.because,
            evidence,
            capture_gap: capture_gap.map(Line::from),
            ..ArmOutcome::new(arm.name, arm.kind)
        };
        Ok((outcome, recording))
    }

    /// The contents of the kernel's tables for each host, and its counters.
    fn tables(&self) -> Result<(Map<Vec<Line>>, Vec<Counted>)> {
        let (mut evidence, mut counted) = (Map::default(), vec![]);
        for host in self.stage.network.hosts() {
            let (mut lines, mut rules) = (vec![], vec![]);
            let changes = self.stage.counters(host.name())?;
            if changes.moved().next().is_some() {
                lines.push(changes.to_string());
                wires::carry();
            }
            if host.has_rules() {
                let entries = Conntrack::of(host.namespace())?.entries()?;
                lines.extend(entries.iter().map(ToString::to_string));
                wires::carry();
                rules = host.firewall().counters()?;
                lines.extend(rules.iter().map(ToString::to_string));
                wires::carry();
            }
            if host.kind() != Kind::Bridge {
                lines.extend(sockets(host.namespace())?.iter().map(ToString::to_string));
            }
            counted.push(Counted { changes, rules });
            evidence.extend(host.name(), lines);
            wires::carry();
        }
        Ok((evidence, counted))
    }

    /// Adds what a witness does not observe: the kernel log, the records of wires,
    /// and the records of probes.
    fn complete(&self, recording: &mut Recording, ended: Duration) -> Result<()> {
        let of_another = |device: &str| {
            let own = |host: &Host| host.interfaces().iter().any(|i| i.name == device);
            !self.stage.network.hosts().iter().any(own)
        };
        recording.log = self.stage.reports.log.complaints(self.stage.logged.get(), of_another)?;
        for (ends, wire) in self.stage.wires.borrow().iter() {
            // If the oldest records have been overwritten, the rest prove nothing about
            // the other frames.
            let [one, other] = ends;
            let link = self.stage.network.topology().wired(one, other).filter(|_| wire.forgotten() == 0);
            recording.wires.push(WireRecording {
                ends: ends.clone(),
                counted: wire.counted(),
                interfaces: link.map(|link| link.map(|end| end.interface.clone())),
                records: wire.frames(),
            });
            wires::carry();
        }
        let begun = ended.saturating_sub(recording.capture.until);
        recording.capture.probes =
            self.stage.network.journal().map_or(vec![], |journal| journal.since(begun));
        Ok(())
    }
}
