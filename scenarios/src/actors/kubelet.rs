//! A stand-in for the kubelet: it probes one container, restarts it, and
//! records events as `kubectl get events` words them.
//!
//! - pkg/kubelet/prober/prober.go: the Unhealthy events
//! - pkg/kubelet/kuberuntime/kuberuntime_manager.go: the others
//!
//! Simplifications: the readiness and the liveness probe share one ticker, and
//! a restart takes no time.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::http::{Agent, get};
use super::prober::{BackOff, Purpose, Worker};
use lab::Result;
use lab::network::Host;

/// A line of `kubectl get events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// `Unhealthy`, `Killing`, `BackOff`.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.kind, self.reason, self.message)
    }
}

/// A node's agent and the pod that it manages.
#[derive(Debug)]
pub struct Kubelet<'a> {
    node: &'a Host,
    container: &'static str,
    agent: Agent<'a>,
    readiness: Worker,
    liveness: Worker,
    back_off: BackOff,
    /// The recorded events, in order.
    pub events: Vec<Event>,
    /// The READY column of `kubectl get pods`, at each change.
    pub ready: Vec<bool>,
    /// The RESTARTS column.
    pub restarts: u32,
}

impl<'a> Kubelet<'a> {
    /// Manages `container`, in which `agent` runs. Both probes have the period
    /// of the readiness probe.
    pub fn new(
        node: &'a Host,
        container: &'static str,
        agent: Agent<'a>,
        readiness: Worker,
        liveness: Worker,
        back_off: BackOff,
    ) -> Self {
        let (events, ready) = (vec![], vec![]);
        Self { node, container, agent, readiness, liveness, back_off, events, ready, restarts: 0 }
    }

    /// Starts the container, and probes it at once and then `periods` times.
    /// Before each of these, `turn` is called with the number of periods that
    /// have passed.
    ///
    /// # Errors
    /// If no socket can be created, or the kernel returns an error that no network
    /// can cause.
    pub async fn run(&mut self, periods: u32, mut turn: impl FnMut(u32)) -> Result<()> {
        let begun = Instant::now();
        let mut ticker = interval(self.readiness.spec().period);
        // Go's ticker would catch up. This one does not: if a busy machine
        // delays a probe, all later ones move with it.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut since, mut starts) = (begun, None);
        self.agent.start()?;
        for passed in 0..=periods {
            tokio::select! {
                biased;
                () = wait(starts) => {
                    self.agent.start()?;
                    since = Instant::now();
                    starts = None;
                    self.restarted();
                    ticker.tick().await;
                }
                _ = ticker.tick() => {}
            }
            turn(passed);
            if !self.agent.runs() {
                self.readiness.not_running();
                self.liveness.not_running();
                self.note_ready();
                continue;
            }
            if self.probe(since.elapsed()).await? {
                self.agent.stop().await;
                let finished = begun.elapsed();
                let start = self.back_off.start(finished);
                if start > finished {
                    self.record("Warning", "BackOff", "Back-off restarting failed container".to_owned());
                    starts = Some(begun + start);
                } else {
                    self.agent.start()?;
                    since = Instant::now();
                    self.restarted();
                }
            }
        }
        Ok(())
    }

    /// Both probes at once. Returns whether the container must be restarted.
    async fn probe(&mut self, running_for: Duration) -> Result<bool> {
        let to = self.agent.address();
        let ask = async |worker: &Worker| {
            if !worker.probes(running_for) {
                return Ok(None);
            }
            get(self.node, to, worker.spec().timeout).await.map(Some)
        };
        let (ready, live) = tokio::join!(ask(&self.readiness), ask(&self.liveness));
        let mut restart = false;
        for (purpose, met) in [(Purpose::Readiness, ready?), (Purpose::Liveness, live?)] {
            let Some(met) = met else { continue };
            if !met.succeeded() {
                let message = format!("{purpose} probe failed: {}", met.output(to));
                self.record("Warning", "Unhealthy", message);
            }
            match purpose {
                Purpose::Readiness => self.readiness.probed(met.succeeded()),
                Purpose::Liveness => {
                    restart = self.liveness.probed(met.succeeded());
                    restart
                }
            };
        }
        if restart {
            let message = format!("Container {} failed liveness probe, will be restarted", self.container);
            self.record("Normal", "Killing", message);
        }
        self.note_ready();
        Ok(restart)
    }

    fn restarted(&mut self) {
        self.restarts += 1;
        self.readiness.started();
        self.liveness.started();
        self.note_ready();
    }

    fn note_ready(&mut self) {
        let ready = self.readiness.healthy();
        if self.ready.last() != Some(&ready) {
            self.ready.push(ready);
        }
    }

    fn record(&mut self, kind: &'static str, reason: &'static str, message: String) {
        self.events.push(Event { kind, reason, message });
    }

    /// Each event once, with its count, in order of first occurrence.
    #[must_use]
    pub fn counted(&self) -> Vec<(&Event, usize)> {
        let mut counted: Vec<(&Event, usize)> = vec![];
        for event in &self.events {
            match counted.iter_mut().find(|(known, _)| *known == event) {
                Some((_, count)) => *count += 1,
                None => counted.push((event, 1)),
            }
        }
        counted
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
