//! A running arm as its play sees it: its network, and the observations so far.

pub(crate) mod session;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::evidence::counters::{Changes, Counters};
use crate::evidence::kernel_log::Record;
use crate::evidence::kernel_reports::KernelReports;
use crate::evidence::shared_log::SharedLog;
use crate::evidence::witness::Witness;
use faultlab_base::error::{Error, Result};
use faultlab_base::text::{self, Line};
use faultlab_model::outcome::Map;
use faultlab_model::scenario::Environment;
use faultlab_net::network::journal::{Observed, ProbeId, ProbeResult};
use faultlab_net::network::{Host, Network, ring};
use faultlab_net::wire::{Policy, Wire, all as wires};
use session::ShellSession;

/// How long a condition may take to become true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which parts of the captures an outcome includes. An outcome that is unexpected or
/// has no reference is explained whenever its arms are captured.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct CaptureOptions {
    /// Whether the outcome includes the frames.
    pub captures: bool,
    /// Whether it is explained.
    pub explains: bool,
}

/// A running arm as its play sees it: the network, and the environment.
///
/// A play cannot ask which arm it runs in. If it could, it might restate what was
/// planted instead of observing it:
///
/// ```compile_fail,E0599
/// async fn play(stage: &lab::stage::Stage<'_>, _: &()) -> lab::Result<()> {
///     stage.observe("the peer", if stage.faulty() { "dead" } else { "alive" });
///     Ok(())
/// }
/// ```
///
/// ```compile_fail,E0616
/// async fn play(stage: &lab::stage::Stage<'_>, _: &()) -> lab::Result<()> {
///     stage.observe("the peer", if stage.arm.name == "fault" { "dead" } else { "alive" });
///     Ok(())
/// }
/// ```
///
/// ```
/// async fn play(stage: &lab::stage::Stage<'_>, _: &()) -> lab::Result<()> {
///     let probe = lab::probe::connect(stage.host("node"), 0, ([10, 0, 0, 2], 80), std::time::Duration::from_secs(2));
///     stage.observe("the peer", probe.await?);
///     Ok(())
/// }
/// ```
pub struct Stage<'a> {
    /// The kernel, its clock, and the settings.
    pub env: &'a Environment,
    pub(crate) scenario: &'static str,
    pub(crate) network: Network,
    pub(crate) reports: &'a KernelReports,
    pub(crate) begun: Cell<Instant>,
    /// How many records the kernel log had at the start.
    pub(crate) logged: Cell<usize>,
    pub(crate) before: RefCell<Vec<Counters>>,
    pub(crate) seen: RefCell<Seen>,
    pub(crate) wires: RefCell<Vec<([String; 2], Rc<Wire>)>>,
    /// `None` if captures are off; an error if the witness could not start, which does
    /// not fail the arm.
    pub(crate) witness: Option<Result<Witness>>,
    /// The shell session beside the arm, if any.
    pub(crate) session: Option<ShellSession>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) observations: Map<text::Cell>,
    pub(crate) unobserved: Map<text::Cell>,
    pub(crate) because: Vec<Line>,
    /// When the last of them was recorded, on CLOCK_MONOTONIC.
    pub(crate) last: Option<Duration>,
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("scenario", &self.scenario).finish_non_exhaustive()
    }
}

impl Stage<'_> {
    /// Holds the fault while a shell runs beside it, and calls `recheck` whenever the
    /// person in the shell asks whether it is cured. Returns at once if there is no
    /// shell.
    ///
    /// For a play that cannot run twice; call it right before the play ends the fault.
    pub async fn hold_for_shell(&self, recheck: impl AsyncFnMut()) {
        if let Some(session) = &self.session {
            session.hold(recheck).await;
        }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Looks up a node of the network.
    ///
    /// # Panics
    /// If there is no node of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.network.host(name)
    }

    /// The name of the device that [`Topology::own_device`] created with this prefix.
    ///
    /// # Panics
    /// If the network has no such device.
    ///
    /// [`Topology::own_device`]: faultlab_net::topology::Topology::own_device
    #[must_use]
    pub fn own_device(&self, prefix: &str) -> String {
        let mut names =
            self.network.topology().links.iter().flat_map(|link| &link.ends).map(|end| &end.interface);
        let own = |name: &&String| {
            let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        names.find(own).unwrap_or_else(|| panic!("no device of this arm begins with {prefix:?}")).clone()
    }

    /// Passes the frames between two nodes through a policy, from now on.
    ///
    /// # Errors
    /// If the link cannot be carried.
    pub fn wire(&self, one: &str, other: &str, policy: impl Policy + 'static) -> Result<Rc<Wire>> {
        let wire = self.network.wire(one, other, Box::new(policy))?;
        self.wires.borrow_mut().push(([one.to_owned(), other.to_owned()], Rc::clone(&wire)));
        Ok(wire)
    }

    /// Records the cell of a row: a text, or a [`ProbeResult`]. The packets of the
    /// probe that a `ProbeResult` belongs to are marked with the row.
    pub fn observe(&self, row: &str, cell: impl Observed) {
        let (cell, probe) = cell.observed();
        self.told(row, probe);
        self.see(|seen| seen.observations.insert(row, cell));
    }

    /// Records the cell of a row for a probe, like [`Stage::observe`], but with another
    /// text than its result's.
    pub fn observe_of<T>(&self, met: &ProbeResult<T>, row: &str, cell: impl fmt::Display) {
        self.told(row, Some(met.probe()));
        self.see(|seen| seen.observations.insert(row, cell.to_string()));
    }

    fn told(&self, row: &str, probe: Option<ProbeId>) {
        if let (Some(journal), Some(probe)) = (self.network.journal(), probe) {
            journal.told(probe, row);
        }
    }

    /// Records that a row could not be observed, and why.
    pub fn cannot_observe(&self, row: &str, why: impl fmt::Display) {
        self.see(|seen| seen.unobserved.insert(row, why.to_string()));
    }

    /// Records a sentence that explains the observations.
    pub fn because(&self, sentence: impl fmt::Display) {
        self.see(|seen| seen.because.push(sentence.to_string().into()));
    }

    fn see(&self, record: impl FnOnce(&mut Seen)) {
        let seen = &mut *self.seen.borrow_mut();
        record(seen);
        seen.last = Some(ring::now());
    }

    /// Time since the network was set up, on the machine's clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.get().elapsed()
    }

    /// Waits for a fixed time. Use this only for durations that belong to the fault; in
    /// all other cases wait for a condition, with [`Stage::until`].
    pub async fn pass(&self, time: Duration) {
        sleep(time).await;
    }

    /// Runs `work` and `other` concurrently until `work` ends; `other` is dropped then.
    ///
    /// # Errors
    /// The first error of either.
    pub async fn beside<T>(
        &self,
        work: impl Future<Output = Result<T>>,
        other: impl Future<Output = Result<Infallible>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            failed = other => match failed? {},
        }
    }

    /// Waits until `is_true` returns true. `condition` describes it in the error.
    ///
    /// # Errors
    /// [`Error::Deadline`] after 15 s; any error of the check.
    pub async fn until(&self, condition: &str, mut is_true: impl FnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_true()? {
            if begun.elapsed() > PATIENCE {
                return Err(Error::Deadline {
                    place: self.scenario.to_owned(),
                    condition: condition.to_owned(),
                    waited: PATIENCE,
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The kernel log.
    #[must_use]
    pub fn log(&self) -> &SharedLog {
        &self.reports.log
    }

    /// Waits up to `patience` for a kernel log message that `wanted` accepts, logged
    /// since the network was set up. Returns `None` if there is none, and at once if
    /// the log cannot be read.
    ///
    /// # Errors
    /// If reading the kernel log fails.
    pub async fn logged<T>(
        &self,
        wanted: impl Fn(&Record) -> Option<T>,
        patience: Duration,
    ) -> Result<Option<T>> {
        let begun = Instant::now();
        loop {
            let found = self.reports.log.find_since(self.logged.get(), &wanted)?;
            if found.is_some() || begun.elapsed() >= patience || !self.reports.log.readable() {
                return Ok(found);
            }
            // /dev/kmsg is polled: on old kernels, its wake-up is not per reader.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The changes of a host's counters since the network was set up.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn counters(&self, host: &str) -> Result<Changes> {
        let index = self.network.topology().index(host);
        let now = Counters::read(self.host(host).namespace())?;
        wires::carry();
        Ok(Counters::changes(&self.before.borrow()[index], &now))
    }
}
