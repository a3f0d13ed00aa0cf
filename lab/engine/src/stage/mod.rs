//! One arm while it runs: its network, and what was seen in it.

mod beside;
mod end;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::evidence::counters::{Changes, Counters};
use crate::evidence::kernel_log::{Record, Waiting};
use crate::evidence::shared_log::SharedLog;
use crate::evidence::sockets::{destroy, sockets};
use crate::evidence::voice::Voice;
use crate::evidence::witness::Witness;
use beside::Beside;
use faultlab_base::error::{Error, Missing, Result};
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{Plan, Scenario};
use faultlab_net::conntrack::Conntrack;
use faultlab_net::network::{Host, Network};
use faultlab_net::wire::{Policy, Wire, all as wires};

/// How long a condition may take to become true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection that nobody holds may take to end by itself: 60 s in
/// TIME_WAIT (include/net/tcp.h, TCP_TIMEWAIT_LEN), and what came before.
const ORPHANED: Duration = Duration::from_secs(90);

/// What becomes of what was seen of an arm beside what its probes met. An
/// outcome that is not as expected is explained in any case.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Looks {
    /// Whether the outcome brings the frames along.
    pub captures: bool,
    /// Whether it is explained.
    pub explains: bool,
}

/// One arm while it runs.
#[derive(Debug)]
pub struct Stage<'a> {
    plan: Plan<'a>,
    /// The row that it is judged by.
    judged_by: &'static str,
    network: Network,
    voice: &'a Voice,
    begun: Cell<Instant>,
    /// How many records the log had then.
    logged: Cell<usize>,
    before: RefCell<Vec<Counters>>,
    seen: RefCell<Seen>,
    wires: RefCell<Vec<([String; 2], Rc<Wire>)>>,
    /// None where nobody looks on; else what does, or why nothing can.
    witness: Option<Result<Witness>>,
    /// Where somebody sits beside it.
    beside: Option<Beside>,
}

#[derive(Debug, Default)]
struct Seen {
    observations: Map<String>,
    unseen: Map<String>,
    because: Vec<String>,
}

impl<'a> Deref for Stage<'a> {
    type Target = Plan<'a>;

    fn deref(&self) -> &Plan<'a> {
        &self.plan
    }
}

impl<'a> Stage<'a> {
    /// Builds the arm's network, and begins to look on where there are `looks`.
    ///
    /// # Errors
    /// What the kernel refused or lacks.
    pub async fn set_up(
        scenario: &Scenario,
        plan: Plan<'a>,
        voice: &'a Voice,
        looks: Option<Looks>,
    ) -> Result<Self> {
        let network = Network::build((scenario.topology)(&plan)).await?;
        let witness = looks.map(|looks| Witness::on(&network, looks.captures));
        let before = network.hosts().iter().map(|h| Counters::read(h.namespace())).collect::<Result<_>>()?;
        Ok(Self {
            plan,
            judged_by: scenario.symptom.row,
            network,
            voice,
            begun: Cell::new(Instant::now()),
            logged: Cell::new(voice.log.count()?),
            before: RefCell::new(before),
            seen: RefCell::default(),
            wires: RefCell::default(),
            witness,
            beside: None,
        })
    }

    /// Has its play stay where it [can](Self::stays), for somebody who sits beside it.
    pub(crate) fn sit_down(&mut self) {
        self.beside = Some(Beside::new());
    }

    /// Stays where the fault stands while somebody sits beside it in a shell,
    /// and has another `look` at what they may have cured whenever they ask. Returns
    /// at once where nobody does.
    ///
    /// For a play that cannot be played again, right before it ends the fault.
    pub async fn stays(&self, look: impl AsyncFnMut()) {
        if let Some(beside) = &self.beside {
            beside.stay(look).await;
        }
    }

    /// Waits until the play stays.
    pub(crate) async fn has_come_to_stay(&self) {
        match &self.beside {
            Some(beside) => beside.stays().await,
            None => std::future::pending().await,
        }
    }

    /// Has a play that stays look again, while it goes on.
    pub(crate) async fn look_again(&self) {
        if let Some(beside) = &self.beside {
            beside.ask().await;
        }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A node of the network.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.network.host(name)
    }

    /// Lets the frames between two nodes pass under a policy, from now on.
    ///
    /// # Errors
    /// Where the link cannot be carried.
    pub fn wire(&self, one: &str, other: &str, policy: impl Policy + 'static) -> Result<Rc<Wire>> {
        let wire = self.network.wire(one, other, Box::new(policy))?;
        self.wires.borrow_mut().push(([one.to_owned(), other.to_owned()], Rc::clone(&wire)));
        Ok(wire)
    }

    /// Records the cell of a row.
    pub fn see(&self, row: &str, cell: impl fmt::Display) {
        let cell = cell.to_string();
        if let Some(journal) = self.network.journal() {
            journal.seen(row, &cell, row == self.judged_by);
        }
        self.seen.borrow_mut().observations.insert(row, cell);
    }

    /// Records that a row could not be seen, and why.
    pub fn cannot_see(&self, row: &str, why: impl fmt::Display) {
        self.seen.borrow_mut().unseen.insert(row, why.to_string());
    }

    /// Records a sentence that explains what was seen.
    pub fn because(&self, sentence: impl fmt::Display) {
        self.seen.borrow_mut().because.push(sentence.to_string());
    }

    /// Time since the network was there, on the machine's clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.get().elapsed()
    }

    /// Lets time pass. For the fault's own durations only: a condition is
    /// awaited, not slept for.
    pub async fn pass(&self, time: Duration) {
        sleep(time).await;
    }

    /// Does `work` while something else goes on, for as long as that takes.
    ///
    /// # Errors
    /// Those of both.
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

    /// Waits until a condition is true.
    ///
    /// # Errors
    /// [`Error::Deadline`] after 15 s; whatever asking fails with.
    pub async fn until(&self, condition: &str, mut is_true: impl FnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_true()? {
            if begun.elapsed() > PATIENCE {
                return Err(Error::Deadline {
                    place: self.plan.arm.name.to_owned(),
                    condition: condition.to_owned(),
                    waited: PATIENCE,
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The kernel's log.
    #[must_use]
    pub fn log(&self) -> &SharedLog {
        &self.voice.log
    }

    /// Waits for a line of the kernel's log since the network was there.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
    pub async fn logged<T>(
        &self,
        wanted: impl Fn(&Record) -> Option<T>,
        patience: Duration,
    ) -> Result<Option<T>> {
        let begun = Instant::now();
        loop {
            let found = self.voice.log.find_since(self.logged.get(), &wanted)?;
            if found.is_some() || begun.elapsed() >= patience || !self.voice.log.readable() {
                return Ok(found);
            }
            // /dev/kmsg is polled: its wake-up is not per reader on old kernels.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the kernel's line about a device that cannot be freed. Without
    /// `still` there is none to come: one that was there is found.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
    pub async fn unregister_netdevice(&self, device: &str, still: bool) -> Result<Option<Waiting>> {
        // net.core.netdev_unregister_timeout_secs is 10, and the wait looks once
        // a second, when it gets the RTNL mutex. A log that cannot be read is
        // not waited for longer than that.
        let patience = match (still, self.voice.log.readable()) {
            (false, _) => Duration::ZERO,
            (true, true) => Duration::from_secs(25),
            (true, false) => Duration::from_secs(11),
        };
        let line = self.logged(|r| r.unregister_netdevice().filter(|w| w.device == device), patience).await?;
        if !self.voice.log.readable() {
            self.pass(patience).await;
        }
        Ok(line)
    }

    /// How a host's counters have changed since the network was there.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn counters(&self, host: &str) -> Result<Changes> {
        let index = self.network.topology().index(host);
        let now = Counters::read(self.host(host).namespace())?;
        wires::carry();
        Ok(Counters::changes(&self.before.borrow()[index], &now))
    }

    /// What was seen of an arm that was played and stays: the wires go on.
    pub(crate) fn played(&self) -> Map<String> {
        let seen = self.seen.borrow();
        let mut cells = seen.observations.clone();
        seen.unseen.0.iter().for_each(|(row, why)| cells.insert(row, format!("cannot be seen: {why}")));
        cells
    }

    /// Makes the network ready for another play, as it now is: the wires of the
    /// last one end, and the kernel forgets flows. What others changed in it
    /// stays, and so do their sockets.
    ///
    /// # Errors
    /// Where the kernel does not forget.
    pub(crate) async fn again(&self) -> Result<()> {
        self.wires.borrow_mut().clear();
        self.seen.take();
        let begun = Instant::now();
        while let Some(missing) = self.end_orphans()? {
            if begun.elapsed() > ORPHANED {
                return Err(Error::Missing(missing));
            }
            sleep(Duration::from_secs(1)).await;
        }
        // Where no rule asks for conntrack there is none to flush.
        for node in self.network.topology().nodes.iter().filter(|n| !n.rules.is_empty()) {
            Conntrack::of(self.host(&node.name).namespace())?.flush()?;
        }
        let counters = self.network.hosts().iter().map(|h| Counters::read(h.namespace()));
        self.before.replace(counters.collect::<Result<_>>()?);
        self.begun.set(Instant::now());
        self.logged.set(self.voice.log.count()?);
        Ok(())
    }

    /// Ends the connections that nobody holds any more: TIME_WAITs, and what waits
    /// for a FIN. What is missing to end them at once, where any is left.
    fn end_orphans(&self) -> Result<Option<Missing>> {
        let mut left = None;
        for host in self.network.hosts() {
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

    /// Has its wires carry nothing from now on: its tables are read as they are.
    pub(crate) fn stop_wires(&self) {
        self.wires.borrow().iter().for_each(|(_, wire)| wire.stop());
    }

    /// Whether the wires carried all that they were to carry.
    ///
    /// # Errors
    /// Where one lost a frame that it was not told to lose, or has failed.
    pub(crate) fn carried(&self) -> Result<()> {
        for (_, wire) in self.wires.borrow().iter() {
            let lost = wire.lost()?;
            if lost > 0 {
                return Err(Error::Lab(format!("a wire lost {lost} frames that it was not told to lose")));
            }
        }
        Ok(())
    }

    /// Waits until who is to look on does.
    pub(crate) fn looked_on(&self) {
        if let Some(Ok(witness)) = &self.witness {
            witness.ready();
        }
    }

    /// Looks at what the arm waits for, for ever.
    pub(crate) async fn look_on(&self) -> Infallible {
        match &self.witness {
            Some(Ok(witness)) => witness.waits().look(&self.network).await,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
