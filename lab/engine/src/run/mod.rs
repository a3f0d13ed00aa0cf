//! A running arm as the engine sees it: the stage that its play receives, and
//! everything that is hidden from the play.

mod budget;
mod end;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::budget::budget;
use crate::evidence::counters::Counters;
use crate::evidence::kernel_reports::KernelReports;
use crate::evidence::sockets::{destroy, sockets};
use crate::evidence::witness::Witness;
use crate::scenario::{Play, ScriptedArm};
use crate::stage::session::ShellSession;
use crate::stage::{CaptureOptions, Stage};
use faultlab_base::error::{Error, Missing, Result};
use faultlab_base::text;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{Arm, Environment, Fault};
use faultlab_net::conntrack::Conntrack;
use faultlab_net::network::Network;

/// How long an orphaned connection may take to end by itself: 60 s in TIME_WAIT
/// (include/net/tcp.h, TCP_TIMEWAIT_LEN), and the states before it.
const ORPHANED: Duration = Duration::from_secs(90);

/// A running arm. It gives its play the [`Stage`], and nothing that identifies the
/// arm.
#[derive(Debug)]
pub struct ArmRun<'a> {
    stage: Stage<'a>,
    scripted: &'a ScriptedArm,
    /// How long its settings make the play wait: [`Fault::lasts`].
    lasts: Duration,
}

impl<'a> ArmRun<'a> {
    /// Builds the arm's network, and starts to capture unless `options` is `None`.
    ///
    /// # Errors
    /// Whatever the kernel rejects or lacks.
    pub async fn set_up(
        fault: &Fault,
        env: &'a Environment,
        scripted: &'a ScriptedArm,
        reports: &'a KernelReports,
        options: Option<CaptureOptions>,
    ) -> Result<Self> {
        let network = Network::build(scripted.arm.network.clone()).await?;
        let witness = options.map(|options| Witness::on(&network, options.captures));
        let before = network.hosts().iter().map(|h| Counters::read(h.namespace())).collect::<Result<_>>()?;
        let stage = Stage {
            env,
            scenario: fault.card.name,
            network,
            reports,
            begun: Cell::new(Instant::now()),
            logged: Cell::new(reports.log.count()?),
            before: RefCell::new(before),
            seen: RefCell::default(),
            wires: RefCell::default(),
            witness,
            session: None,
        };
        Ok(Self { stage, scripted, lasts: (fault.lasts)(env) })
    }

    /// The arm.
    #[must_use]
    pub fn arm(&self) -> &'a Arm {
        &self.scripted.arm
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &'a Environment {
        self.stage.env
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.stage.network
    }

    /// Time since the network was set up, on the machine's clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.stage.elapsed()
    }

    /// Plays the arm.
    pub fn play(&self) -> Play<'_> {
        self.scripted.play(&self.stage)
    }

    /// Makes the play hold its fault, if it [can](Stage::hold_for_shell), for a shell
    /// beside it.
    pub fn expect_shell(&mut self) {
        self.stage.session = Some(ShellSession::new());
    }

    /// Waits until the play holds its fault.
    pub async fn is_held(&self) {
        match &self.stage.session {
            Some(session) => session.is_held().await,
            None => std::future::pending().await,
        }
    }

    /// Makes a play that holds its fault check whether the fault is cured.
    pub async fn recheck(&self) {
        if let Some(session) = &self.stage.session {
            session.recheck().await;
        }
    }

    /// The observations so far. The wires keep running.
    #[must_use]
    pub fn observed(&self) -> Map<text::Cell> {
        let seen = self.stage.seen.borrow();
        let mut cells = seen.observations.clone();
        for (row, why) in &seen.unobserved.0 {
            cells.insert(row.clone(), format!("cannot be observed: {why}"));
        }
        cells
    }

    /// Prepares the network in its current state for another play: the wires of the
    /// last play end, and the kernel's flows are flushed. What the person in the
    /// shell changed stays, with that person's sockets.
    ///
    /// # Errors
    /// If the flows cannot be flushed.
    pub async fn reset(&self) -> Result<()> {
        self.stage.wires.borrow_mut().clear();
        self.stage.seen.take();
        let begun = Instant::now();
        while let Some(missing) = self.end_orphans()? {
            if begun.elapsed() > ORPHANED {
                return Err(Error::Missing(missing));
            }
            sleep(Duration::from_secs(1)).await;
        }
        // Without a rule that uses conntrack, there is nothing to flush.
        for node in self.stage.network.topology().nodes.iter().filter(|n| !n.rules.is_empty()) {
            Conntrack::of(self.stage.host(&node.name).namespace())?.flush()?;
        }
        let counters = self.stage.network.hosts().iter().map(|h| Counters::read(h.namespace()));
        self.stage.before.replace(counters.collect::<Result<_>>()?);
        self.stage.begun.set(Instant::now());
        self.stage.logged.set(self.stage.reports.log.count()?);
        Ok(())
    }

    /// Ends orphaned connections: those in TIME_WAIT, and those that wait for a FIN.
    /// Returns what is missing to end them at once, if any is left.
    fn end_orphans(&self) -> Result<Option<Missing>> {
        let mut left = None;
        for host in self.stage.network.hosts() {
            for socket in sockets(host.namespace())?.iter().filter(|s| s.inode == 0) {
                match destroy(host.namespace(), socket) {
                    Err(Error::Missing(missing)) => left = Some(missing),
                    // It has ended by itself.
                    Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
                    done => done?,
                }
            }
        }
        Ok(left)
    }

    /// Stops the wires, so that the tables are read in their current state.
    pub(crate) fn stop_wires(&self) {
        self.stage.wires.borrow().iter().for_each(|(_, wire)| wire.stop());
    }

    /// Checks that the wires carried every frame they should have.
    ///
    /// # Errors
    /// If a wire lost a frame that its policy did not drop, or has failed.
    pub fn check_wires(&self) -> Result<()> {
        for (_, wire) in self.stage.wires.borrow().iter() {
            let lost = wire.lost()?;
            if lost > 0 {
                return Err(Error::Lab(format!(
                    "a wire lost {lost} frames that its policy did not drop: its receive ring was full"
                )));
            }
        }
        Ok(())
    }

    /// Waits until the witness, if there is one, captures at every host.
    pub fn await_witness(&self) {
        if let Some(Ok(witness)) = &self.stage.witness {
            witness.ready();
        }
    }

    /// Samples what the arm waits for. Never returns.
    pub async fn watch_waits(&self) -> Infallible {
        match &self.stage.witness {
            Some(Ok(witness)) => witness.waits().sample(&self.stage.network).await,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
