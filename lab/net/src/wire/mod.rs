//! A link whose frames pass through this process.
//!
//! ```text
//! host-a eth0 <-veth-> w0 [ wire: policy ] w1 <-veth-> eth0 host-b
//!                      end 0          end 1
//! ```
//!
//! A [`Wire`] plays the part of the network: it carries every frame between two
//! interfaces, except as its [`Policy`] decides. It needs no netem and no rules
//! in any kernel.
//!
//! - [`segment`]: TCP segments in frames
//! - [`policy`]: what is done with frames
//! - [`tw_recycle`]: the check of a kernel with tcp_tw_recycle, as a policy
//! - [`frag_needed`], [`packet_too_big`]: messages of ICMP and ICMPv6, as a router
//!   would send them
//! - `log`: the frames of a wire, and what happened to them
//! - `all`: lets every wire forward its frames during long work on their thread

pub mod all;
pub mod frag_needed;
mod log;
pub mod packet_too_big;
pub mod policy;
pub mod segment;
pub mod tw_recycle;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use crate::namespace::Namespace;
use crate::packet::offload;
use crate::packet::ring::{Arrival, RETRY, Ring, Sent};
use faultlab_base::error::{Error, Result};

pub use crate::packet::clock::now;
pub use log::{Fate, Origin, Record};
pub use policy::{Decisions, Direction, Frame, Policy};

/// How many frames one end may receive or send before it is the other's turn.
const BATCH: usize = 64;

/// A link through this process. It carries frames until dropped.
#[must_use = "a wire carries frames only as long as it is kept"]
pub struct Wire {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// `None` once the wire is dropped or has failed.
    running: Option<Running>,
    log: log::Log,
    failure: Option<Error>,
    /// Wakes the task that carries the frames.
    waker: Option<Waker>,
    /// Whether it has stopped carrying frames.
    stopped: bool,
}

impl Wire {
    /// Connects two interfaces, `ends`, each of which is up in its namespace.
    ///
    /// Switches off the offloads of both. The offloads of the hosts' interfaces,
    /// at the other ends of the veth pairs, must be off too
    /// ([`offload::switch_off`]). The ends need no addresses. Disable IPv6 on
    /// them, or their kernel sends neighbour discovery to the hosts.
    ///
    /// # Errors
    /// Without CAP_NET_RAW or CAP_NET_ADMIN over the namespaces; if an interface
    /// is missing or down.
    ///
    /// # Panics
    /// Outside of a tokio `LocalSet`.
    pub fn new(name: &str, ends: [(&Namespace, &str); 2], policy: Box<dyn Policy>) -> Result<Self> {
        let open = |(ns, ifname): (&Namespace, &str)| {
            offload::switch_off(ns, ifname)?;
            Ring::open(name, ns, ifname)
        };
        let [first, second] = ends;
        Self::between([open(first)?, open(second)?], policy)
    }

    /// Connects two interfaces whose rings are open and whose offloads are off.
    ///
    /// # Errors
    /// If the runtime cannot watch the rings.
    pub(crate) fn between(rings: [Ring; 2], policy: Box<dyn Policy>) -> Result<Self> {
        let [first, second] = rings;
        let ends = [End::new(first)?, End::new(second)?];
        let running = Running { ends, policy, due: None, retry: None };
        let shared = Rc::new(RefCell::new(Shared { running: Some(running), ..Shared::default() }));
        all::add(&shared);
        let task = shared.clone();
        tokio::task::spawn_local(poll_fn(move |context| task.borrow_mut().carry(context)));
        Ok(Self { shared })
    }

    /// Sends `frame` out of the end in this direction, bypassing the policy.
    ///
    /// If the wire has failed, the frame is lost. [`Wire::check`] reports the
    /// failure.
    pub fn inject(&self, direction: Direction, frame: Vec<u8>) {
        let shared = &mut *self.shared.borrow_mut();
        if let Some(running) = &mut shared.running {
            let frame = Frame { since: now(), ..Frame::new(direction, frame) };
            running.ends[towards(direction)].waiting.push_back(frame);
        }
        if let Some(waker) = &shared.waker {
            waker.wake_by_ref();
        }
    }

    /// The newest 65536 frames, in the order in which they arrived at the wire.
    #[must_use]
    pub fn frames(&self) -> Vec<Record> {
        self.shared.borrow().log.records()
    }

    /// Waits until the wire has processed every frame that has arrived. A probe
    /// may get its answer before this process has read the frame that carried it.
    pub async fn caught_up(&self) {
        let behind = || {
            let shared = self.shared.borrow();
            shared.running.iter().flat_map(|running| &running.ends).any(|end| end.ring.get_ref().has_more())
        };
        while behind() {
            tokio::task::yield_now().await;
        }
    }

    /// What its policy counted in place of a kernel; see [`Policy::counted`].
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.shared.borrow().running.iter().flat_map(|running| running.policy.counted()).collect()
    }

    /// Stops the wire: frames that arrive later belong to the teardown of the
    /// arm.
    pub fn stop(&self) {
        self.shared.borrow_mut().stopped = true;
    }

    /// How many older frames are no longer in [`Wire::frames`].
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.shared.borrow().log.forgotten()
    }

    /// How many frames the kernel lost because a receive ring was full. They
    /// never reached the policy, so anything but zero spoils a run.
    ///
    /// # Errors
    /// If the kernel does not answer; also the errors of [`Wire::check`].
    pub fn lost(&self) -> Result<u64> {
        self.check()?;
        let shared = &mut *self.shared.borrow_mut();
        let ends = shared.running.iter_mut().flat_map(|running| &mut running.ends);
        ends.map(|end| end.ring.get_mut().lost()).sum()
    }

    /// Checks that the wire still carries frames.
    ///
    /// # Errors
    /// The reason why it stopped; reported once, at the latest when the wire is
    /// dropped.
    pub fn check(&self) -> Result<()> {
        self.shared.borrow_mut().failure.take().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.borrow();
        let ends = shared.running.iter().flat_map(|running| &running.ends);
        f.debug_list().entries(ends.map(|end| end.ring.get_ref().place())).finish()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let shared = &mut *self.shared.borrow_mut();
        // The task ends when it finds nothing.
        shared.running = None;
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
        if let Some(error) = shared.failure.take() {
            faultlab_base::terminal::say(&error.to_string());
        }
    }
}

impl all::Carries for Shared {
    fn catch_up(&mut self) {
        if self.is_behind() {
            // Before its first poll, the task has no waker and needs none.
            let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
            let _ = self.carry(&mut Context::from_waker(&waker));
        }
    }
}

impl Shared {
    /// Whether a frame has arrived that was not processed yet, or is due.
    fn is_behind(&self) -> bool {
        let is_behind = |running: &Running| {
            running.ends.iter().any(|end| end.ring.get_ref().has_more())
                || running.due.is_some_and(|due| due <= now())
        };
        !self.stopped && self.running.as_ref().is_some_and(is_behind)
    }

    fn carry(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(running) = &mut self.running else { return Poll::Ready(()) };
        if self.stopped {
            self.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Err(error) = running.carry(&mut self.log, context) {
            self.running = None;
            self.failure = Some(error);
            return Poll::Ready(());
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A wire's two ends and what is between them.
struct Running {
    ends: [End; 2],
    policy: Box<dyn Policy>,
    /// When the policy, or a full queue, asked to be polled.
    due: Option<Duration>,
    /// Wakes the task when the policy, or a full queue, asked for it.
    retry: Option<Pin<Box<Sleep>>>,
}

/// One end: its interface, and the frames that will leave through it.
struct End {
    ring: AsyncFd<Ring>,
    waiting: VecDeque<Frame>,
    gone: bool,
}

impl End {
    fn new(ring: Ring) -> Result<Self> {
        let place = ring.place().to_owned();
        #[allow(unsafe_code, reason = "tokio leaves I/O safety to the caller")]
        // SAFETY: a Ring owns one socket and never replaces it.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(|e| Error::kernel(place, "epoll_ctl", std::io::Error::from(e)))?;
        Ok(Self { ring, waiting: VecDeque::new(), gone: false })
    }

    /// The next frame that arrived; if there is none, the next one wakes the
    /// task.
    fn poll_take(&mut self, context: &mut Context<'_>) -> Result<Option<Arrival>> {
        loop {
            if let Some(arrival) = self.ring.get_mut().take()? {
                return Ok(Some(arrival));
            }
            // Readiness may be stale. Clear it first, then look at the ring
            // again, so that a frame that arrives in between is found.
            match self.ring.poll_read_ready(context) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                Poll::Ready(Err(e)) => {
                    return Err(Error::kernel(self.ring.get_ref().place(), "epoll_wait", e));
                }
            }
        }
    }

    /// Sends up to [`BATCH`] waiting frames. Returns when to try again if no
    /// socket event will signal that.
    fn poll_send(&mut self, log: &mut log::Log, context: &mut Context<'_>) -> Result<Option<Duration>> {
        let mut sent = 0;
        while let Some(frame) = self.waiting.front() {
            let now = now();
            if sent == BATCH {
                return Ok(Some(now));
            }
            let sending = if self.gone { Sent::Gone } else { self.ring.get_ref().send(&frame.bytes)? };
            let fate = match sending {
                Sent::Done => Fate::Passed { at: now },
                Sent::Gone => Fate::Unsent,
                Sent::Queue => return Ok(Some(now + RETRY)),
                Sent::Full => match self.ring.poll_write_ready(context) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(Ok(mut guard)) => {
                        guard.clear_ready();
                        continue;
                    }
                    Poll::Ready(Err(e)) => {
                        return Err(Error::kernel(self.ring.get_ref().place(), "epoll_wait", e));
                    }
                },
            };
            all::record_delay(now.saturating_sub(frame.since));
            self.gone = fate == Fate::Unsent;
            log.ended(frame, now, fate);
            self.waiting.pop_front();
            sent += 1;
        }
        Ok(None)
    }
}

impl Running {
    fn carry(&mut self, log: &mut log::Log, context: &mut Context<'_>) -> Result<()> {
        let mut out = Decisions::default();
        let mut more = false;
        let known = log.met();
        let is_new = |frame: &Frame| frame.record.is_some_and(|number| number >= known);
        for direction in Direction::BOTH {
            let mut taken = 0;
            while taken < BATCH
                && let Some(Arrival { at, bytes }) =
                    self.ends[towards(direction.reverse())].poll_take(context)?
            {
                let mut frame = Frame::new(direction, bytes);
                log.arrived(&mut frame, at);
                self.policy.frame(at, frame, &mut out);
                taken += 1;
            }
            more |= taken == BATCH;
        }
        let mut next = self.policy.poll(now(), context.waker(), &mut out);
        let now = now();
        for frame in out.dropped {
            if is_new(&frame) {
                all::record_delay(now.saturating_sub(frame.since));
            }
            log.ended(&frame, now, Fate::Dropped);
        }
        for mut frame in out.passed {
            if !is_new(&frame) {
                // The wire's own delay begins when the policy was due to release
                // it, or now if nothing was due.
                frame.since = self.due.map_or(now, |due| due.min(now));
            }
            self.ends[towards(frame.direction)].waiting.push_back(frame);
        }
        for end in &mut self.ends {
            let again = end.poll_send(log, context)?;
            next = next.into_iter().chain(again).min();
        }
        self.retry = None;
        self.due = next;
        let wait = next.map(|next| next.saturating_sub(self::now()));
        match wait {
            _ if more => context.waker().wake_by_ref(),
            Some(Duration::ZERO) => context.waker().wake_by_ref(),
            Some(wait) => {
                let mut timer = Box::pin(sleep(wait));
                if timer.as_mut().poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
                self.retry = Some(timer);
            }
            None => {}
        }
        Ok(())
    }
}

/// The end through which frames of this direction leave.
fn towards(direction: Direction) -> usize {
    match direction {
        Direction::There => 1,
        Direction::Back => 0,
    }
}
