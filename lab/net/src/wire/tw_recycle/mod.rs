//! The tcp_tw_recycle check of an old kernel, in front of a server without it.
//!
//! Up to Linux 4.11, a server with net.ipv4.tcp_tw_recycle=1 kept the newest
//! timestamp of every peer whose connection it had closed first. For 60 s it
//! silently dropped SYNs from that peer with an older timestamp. Behind a NAT,
//! one address stands for many hosts with many clocks.
//!
//! [`Model`] takes every segment to and from the server, with its time, and
//! decides which SYNs such a kernel would drop. It agrees with measurements of
//! mainline 3.10.17 and 4.9.337 (tests/vectors/tw_recycle.jsonl). It cannot know:
//!
//! - whether a port is open: it assumes so for every SYN, while a real kernel
//!   answers RST on a closed port;
//! - whether SYN cookies are in use, which bypass the check on 4.x;
//! - close() from shutdown(): it takes the server's FIN for close(), and its
//!   orphan keeps FIN_WAIT2 for a tcp_fin_timeout of 60 s.
//!
//! A SYN for a connection that the server still knows, even in TIME_WAIT, is left
//! to the server. In an old kernel a recycled TIME_WAIT lasts 3.5 RTO, and so does
//! the model's; the real server behind it keeps TIME_WAIT for 60 s.
//!
//! - net/ipv4/tcp_minisocks.c, tcp_time_wait(): when a stamp is kept
//! - net/ipv4/tcp_metrics.c, tcp_remember_stamp(), tcp_peer_is_proven()
//! - net/ipv4/tcp_ipv4.c and net/ipv6/tcp_ipv6.c (3.10), tcp_input.c (4.x),
//!   tcp_conn_request(): the check, which is one for both families
//! - 4396e46187ca "tcp: remove tcp_tw_recycle", 4.12

mod connection;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::policy::{Decisions, Direction, Frame, Policy};
use super::segment::{Header, Segment};
use connection::{Change, Connection, TCP_PAWS_WINDOW, older};

pub use connection::Stamp;

/// include/net/tcp.h: TCP_PAWS_MSL, seconds.
const TCP_PAWS_MSL: u64 = 60;
/// How many connections are tracked; the one idle for longest is evicted first.
const CONNECTIONS: usize = 4096;
/// How many stamps are kept; the oldest is evicted first.
const STAMPS: usize = 4096;

/// Which kernel's check to apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Mainline 3.6 to 3.16: a stamp per peer; a SYN without timestamps is not
    /// checked. 3.14 to 3.16 have a stamp per peer and server address
    /// (795709af1513), which makes no difference to a server with one address.
    /// RHEL 7's 3.10 is not among them.
    UpTo3_16,
    /// Mainline 3.17 (a26552afe894) to 4.11, and RHEL 7's 3.10: a stamp per peer
    /// and server address; a SYN without timestamps is dropped while there is a
    /// stamp.
    From3_17,
}

/// Who sent a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// One of the server's peers.
    Client,
    /// The server.
    Server,
}

/// What an old kernel would do with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// Accept it.
    Pass,
    /// Drop it silently: no answer, no log message.
    Drop,
}

/// The counters of /proc/net/netstat that the check increments.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// TcpExt PAWSPassive: SYNs dropped by the check.
    pub paws_passive: u64,
    /// TcpExt ListenDrops: the same SYNs, counted once more.
    pub listen_drops: u64,
}

/// The key of a stamp: the peer, and the server's address if the rule has one.
type Key = (IpAddr, Option<IpAddr>);

/// The check, and the state it needs.
#[derive(Debug)]
pub struct Model {
    rule: Rule,
    recycle: bool,
    timestamps: bool,
    /// Seconds.
    paws_window: u64,
    /// By client, then server.
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    stamps: HashMap<Key, Stamp>,
    counters: Counters,
}

impl Model {
    /// A server that has just started, with tcp_tw_recycle=1.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            recycle: true,
            timestamps: true,
            paws_window: TCP_PAWS_MSL,
            connections: HashMap::new(),
            stamps: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// Sets the server's tcp_tw_recycle. Existing stamps are kept.
    pub fn set_recycle(&mut self, on: bool) {
        self.recycle = on;
    }

    /// Sets the server's tcp_timestamps: without it, the server ignores the
    /// option in a SYN.
    pub fn set_timestamps(&mut self, on: bool) {
        self.timestamps = on;
    }

    /// Sets how long stamps are valid, instead of the 60 s of TCP_PAWS_MSL: for
    /// those who cannot wait that long. No kernel lets anyone change it.
    pub fn set_paws_window(&mut self, window: Duration) {
        self.paws_window = window.as_secs();
    }

    /// How many SYNs were dropped.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The stamp that applies to a SYN from `peer` to `server` at `now`.
    #[must_use]
    pub fn stamp(&self, now: Duration, peer: IpAddr, server: IpAddr) -> Option<Stamp> {
        let stamp = self.stamps.get(&self.key(peer, server))?;
        (age(now, *stamp) < self.paws_window).then_some(*stamp)
    }

    /// Processes a segment that passes at `now`. Only whole seconds and
    /// differences of the clock matter.
    pub fn segment(&mut self, now: Duration, from: Side, segment: &Segment<'_>) -> Verdict {
        let header = &segment.header;
        let length = u32::try_from(segment.payload.len()).unwrap_or(u32::MAX);
        let name = match from {
            Side::Client => (header.src, header.dst),
            Side::Server => (header.dst, header.src),
        };
        if from == Side::Client && header.flags.opens() {
            return self.syn(now, name, header);
        }
        let Some(connection) = self.connections.get_mut(&name) else { return Verdict::Pass };
        let change = match from {
            Side::Client => connection.client_sent(now, header, length),
            Side::Server => connection.server_sent(now, header, length),
        };
        match change {
            Change::TimeWait(Some(stamp)) if self.recycle => {
                connection.recycle(now);
                self.remember(now, self.key(name.0.ip(), name.1.ip()), stamp);
            }
            Change::Closed => {
                self.connections.remove(&name);
            }
            Change::None | Change::TimeWait(_) => {}
        }
        Verdict::Pass
    }

    fn syn(&mut self, now: Duration, name: (SocketAddr, SocketAddr), syn: &Header) -> Verdict {
        if let Some(connection) = self.connections.get_mut(&name) {
            if connection.has_socket(now) {
                connection.asked_again(now, syn);
                return Verdict::Pass;
            }
            self.connections.remove(&name);
        }
        if self.recycle && !self.is_proven(now, syn) {
            self.counters.paws_passive += 1;
            self.counters.listen_drops += 1;
            return Verdict::Drop;
        }
        if self.connections.len() >= CONNECTIONS {
            evict(&mut self.connections, |connection| connection.touched);
        }
        self.connections.insert(name, Connection::asked(now, syn));
        Verdict::Pass
    }

    /// tcp_peer_is_proven() with paws_check.
    fn is_proven(&self, now: Duration, syn: &Header) -> bool {
        let Some(stamp) = self.stamp(now, syn.src.ip(), syn.dst.ip()) else { return true };
        match syn.timestamps.filter(|_| self.timestamps) {
            Some(timestamps) => !older(timestamps.tsval, stamp.ts, TCP_PAWS_WINDOW),
            // a26552afe894, "tcp: don't allow syn packets without timestamps to
            // pass tcp_tw_recycle logic".
            None => self.rule == Rule::UpTo3_16,
        }
    }

    /// tcp_remember_stamp(): a lower timestamp never replaces a fresh one.
    fn remember(&mut self, now: Duration, key: Key, new: Stamp) {
        // A stamp older than the window neither drops a SYN nor keeps a newer one from
        // being stored.
        let window = self.paws_window;
        self.stamps.retain(|_, stamp| age(now, *stamp) <= window);
        if self.stamps.get(&key).is_some_and(|kept| older(new.ts, kept.ts, 0)) {
            return;
        }
        if self.stamps.len() >= STAMPS && !self.stamps.contains_key(&key) {
            evict(&mut self.stamps, |stamp| stamp.second);
        }
        self.stamps.insert(key, new);
    }

    fn key(&self, peer: IpAddr, server: IpAddr) -> Key {
        (peer, (self.rule == Rule::From3_17).then_some(server))
    }
}

/// The age of a stamp, in seconds as the kernel counts them.
fn age(now: Duration, stamp: Stamp) -> u64 {
    now.as_secs().saturating_sub(stamp.second)
}

/// Removes the entry with the least `rank`.
fn evict<K: Copy + Eq + std::hash::Hash, V, R: Ord>(map: &mut HashMap<K, V>, rank: impl Fn(&V) -> R) {
    if let Some(&key) = map.iter().min_by_key(|(_, value)| rank(value)).map(|(key, _)| key) {
        map.remove(&key);
    }
}

/// Drops on a wire what the model says an old server would drop.
#[derive(Debug)]
pub struct TwRecycle {
    model: Rc<RefCell<Model>>,
    server: Direction,
}

/// Controls and reads the model of a [`TwRecycle`].
#[derive(Clone, Debug)]
pub struct TwRecycleHandle {
    model: Rc<RefCell<Model>>,
}

impl TwRecycle {
    /// The check of `rule`, switched on, for the servers that frames in the
    /// direction `server` reach.
    #[must_use]
    pub fn new(rule: Rule, server: Direction) -> (Self, TwRecycleHandle) {
        let model = Rc::new(RefCell::new(Model::new(rule)));
        (Self { model: model.clone(), server }, TwRecycleHandle { model })
    }
}

impl TwRecycleHandle {
    /// See [`Model::set_recycle`].
    pub fn set_recycle(&self, on: bool) {
        self.model.borrow_mut().set_recycle(on);
    }

    /// See [`Model::set_timestamps`].
    pub fn set_timestamps(&self, on: bool) {
        self.model.borrow_mut().set_timestamps(on);
    }

    /// See [`Model::set_paws_window`].
    pub fn set_paws_window(&self, window: Duration) {
        self.model.borrow_mut().set_paws_window(window);
    }

    /// See [`Model::counters`].
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.model.borrow().counters()
    }
}

impl Policy for TwRecycle {
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Decisions) {
        let from = if frame.direction == self.server { Side::Client } else { Side::Server };
        let verdict = frame
            .segment()
            .map_or(Verdict::Pass, |segment| self.model.borrow_mut().segment(now, from, &segment));
        match verdict {
            Verdict::Pass => out.pass(frame),
            Verdict::Drop => out.drop(frame),
        }
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let Counters { paws_passive, listen_drops } = self.model.borrow().counters();
        vec![("PAWSPassive", paws_passive), ("ListenDrops", listen_drops)]
    }
}
