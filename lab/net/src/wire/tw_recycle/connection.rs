//! One TCP connection from the server's point of view, as far as a wire can tell.
//!
//! The model needs to know when the server calls tcp_time_wait(), and its
//! ts_recent at that moment. The wire sees segments, not system calls. So it
//! takes the server's FIN for close(), which orphans the socket, unless the
//! server accepts data after it.
//!
//! - net/ipv4/tcp_input.c: tcp_replace_ts_recent(), tcp_fin(),
//!   tcp_rcv_state_process() (FIN_WAIT1, CLOSING, LAST_ACK)
//! - net/ipv4/tcp_minisocks.c: tcp_check_req(), tcp_time_wait(),
//!   tcp_timewait_state_process()

use std::time::Duration;

use crate::wire::segment::{Flags, Header, Timestamps};

/// include/net/tcp.h: TCP_PAWS_WINDOW, ticks.
pub(super) const TCP_PAWS_WINDOW: i32 = 1;
/// include/net/tcp.h: TCP_TIMEWAIT_LEN.
const TCP_TIMEWAIT_LEN: Duration = Duration::from_secs(60);
/// net.ipv4.tcp_fin_timeout: how long an orphan stays in FIN_WAIT2.
const TCP_FIN_TIMEOUT: Duration = Duration::from_secs(60);
/// include/net/tcp.h: TCP_RTO_MIN.
const TCP_RTO_MIN: Duration = Duration::from_millis(200);
/// How long a SYN-ACK waits for its ACK with tcp_synack_retries=5: 1+2+4+8+16+32 s.
const SYN_RECV_LEN: Duration = Duration::from_secs(63);

/// The newest timestamp from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Its TSval: ts_recent.
    pub ts: u32,
    /// The whole second in which it arrived: ts_recent_stamp.
    pub second: u64,
}

/// The state of the server's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// None yet: a SYN passed and was not answered.
    Asked,
    /// SYN_RECV, until the kernel gives up.
    SynRecv { until: Duration },
    /// ESTABLISHED to CLOSING: a full socket.
    Full,
    /// FIN_WAIT2 as a time-wait socket, until it expires.
    FinWait2 { until: Duration },
    /// TIME_WAIT, until it expires.
    TimeWait { until: Duration },
}

/// How a segment changed the server's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Not in a way that matters here.
    None,
    /// tcp_time_wait() was called, or the FIN arrived that a socket in FIN_WAIT2
    /// waited for. With the peer's stamp, if the peer uses timestamps.
    TimeWait(Option<Stamp>),
    /// The socket is gone.
    Closed,
}

/// A SYN from the client.
#[derive(Clone, Copy, Debug)]
struct Syn {
    seq: u32,
    timestamps: Option<Timestamps>,
}

/// The server's FIN.
#[derive(Clone, Copy, Debug)]
struct ServerFin {
    /// The acknowledgement number that covers it.
    end: u32,
    /// It was sent before the server received a FIN from the client.
    active: bool,
    /// The client has acknowledged it.
    acked: bool,
    /// The socket is an orphan: it was closed, not only shut down.
    orphan: bool,
}

/// A connection. The fields have the names and values of struct tcp_sock, where
/// it has them.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    syn: Syn,
    /// When the last segment passed.
    pub(super) touched: Duration,
    /// When the SYN-ACK was sent; `None` once it was retransmitted.
    syn_ack_at: Option<Duration>,
    rto: Duration,
    /// ts_recent and ts_recent_stamp; `None` unless both sides use timestamps.
    recent: Option<Stamp>,
    rcv_nxt: u32,
    rcv_wup: u32,
    /// The sequence number after the client's FIN.
    client_fin: Option<u32>,
    server_fin: Option<ServerFin>,
}

impl Connection {
    /// A connection that `syn` requests at `now`.
    pub(super) fn asked(now: Duration, syn: &Header) -> Self {
        Self {
            state: State::Asked,
            syn: Syn { seq: syn.seq, timestamps: syn.timestamps },
            touched: now,
            syn_ack_at: None,
            rto: TCP_RTO_MIN,
            recent: None,
            rcv_nxt: syn.seq.wrapping_add(1),
            rcv_wup: syn.seq.wrapping_add(1),
            client_fin: None,
            server_fin: None,
        }
    }

    /// Whether the server has a socket, full or not, that a SYN reaches before
    /// the listening one.
    pub(super) fn has_socket(&self, now: Duration) -> bool {
        match self.state {
            State::Asked => false,
            State::Full => true,
            State::SynRecv { until } | State::FinWait2 { until } | State::TimeWait { until } => now < until,
        }
    }

    /// Another SYN from the client passed.
    pub(super) fn asked_again(&mut self, now: Duration, syn: &Header) {
        self.touched = now;
        self.syn = Syn { seq: syn.seq, timestamps: syn.timestamps };
    }

    /// The server has tcp_tw_recycle: TIME_WAIT ends after 3.5 RTO, not 60 s.
    /// tcp_minisocks.c, tcp_time_wait(): (rto << 2) - (rto >> 1).
    pub(super) fn recycle(&mut self, now: Duration) {
        if let State::TimeWait { until } = &mut self.state {
            *until = now + self.rto * 7 / 2;
        }
    }

    /// A segment from the client, not a SYN, with `length` bytes of payload.
    pub(super) fn client_sent(&mut self, now: Duration, header: &Header, length: u32) -> Change {
        self.touched = now;
        let &Header { seq, ack, flags, timestamps, .. } = header;
        if flags.contains(Flags::RST) {
            // RFC 5961 3.2: a RST with any other number gets a challenge ACK.
            return if seq == self.rcv_nxt { Change::Closed } else { Change::None };
        }
        match self.state {
            State::FinWait2 { until } | State::TimeWait { until } if until <= now => return Change::Closed,
            State::TimeWait { .. } => {
                // tcp_timewait_state_process(): an ACK restarts the full timeout.
                self.state = State::TimeWait { until: now + TCP_TIMEWAIT_LEN };
                return Change::None;
            }
            State::Asked => return Change::None,
            State::SynRecv { .. } | State::Full | State::FinWait2 { .. } => {}
        }
        if self.is_too_old(timestamps) || !flags.contains(Flags::ACK) {
            return Change::None;
        }
        let fin = u32::from(flags.contains(Flags::FIN));
        let end = seq.wrapping_add(length + fin);
        let new_data = before(self.rcv_nxt, end.wrapping_sub(fin));
        if fin == 1 {
            self.client_fin.get_or_insert(end);
        }
        match (self.state, timestamps, &mut self.recent) {
            // A time-wait socket takes the timestamp of its FIN whatever the window.
            (State::FinWait2 { .. }, Some(timestamps), Some(recent)) if fin == 1 && !new_data => {
                *recent = Stamp { ts: timestamps.tsval, second: now.as_secs() };
            }
            (State::SynRecv { .. }, ..) => self.established(now),
            _ => {}
        }
        self.update_recent(now, seq, end, timestamps);
        if !before(self.rcv_nxt, seq) {
            self.rcv_nxt = later(self.rcv_nxt, end);
        }
        if let Some(server_fin) = &mut self.server_fin {
            server_fin.acked |= !before(ack, server_fin.end);
            if server_fin.acked && new_data {
                // New data resets an orphan. If no RST follows, it is not one.
                server_fin.orphan = false;
                self.state = State::Full;
                return Change::None;
            }
        }
        self.close(now)
    }

    /// A segment from the server with `length` bytes of payload.
    pub(super) fn server_sent(&mut self, now: Duration, header: &Header, length: u32) -> Change {
        self.touched = now;
        let &Header { seq, ack, flags, timestamps, .. } = header;
        if flags.contains(Flags::RST) {
            return Change::Closed;
        }
        if flags.contains(Flags::SYN_ACK) {
            if ack == self.syn.seq.wrapping_add(1) {
                self.answered(now, timestamps);
            }
            return Change::None;
        }
        if !flags.contains(Flags::ACK) || matches!(self.state, State::Asked | State::SynRecv { .. }) {
            return Change::None;
        }
        // The server has received what it acknowledges, perhaps because a hole
        // was filled.
        self.rcv_nxt = later(self.rcv_nxt, ack);
        self.rcv_wup = later(self.rcv_wup, ack);
        if flags.contains(Flags::FIN) && self.server_fin.is_none() {
            let end = seq.wrapping_add(length + 1);
            let active = self.client_fin.is_none_or(|fin| before(ack, fin));
            self.server_fin = Some(ServerFin { end, active, acked: false, orphan: true });
        }
        self.close(now)
    }

    /// The SYN-ACK was sent: SYN_RECV, or still SYN_RECV.
    fn answered(&mut self, now: Duration, timestamps: Option<Timestamps>) {
        if matches!(self.state, State::SynRecv { .. }) {
            self.syn_ack_at = None;
            return;
        }
        let stamp = |syn: Timestamps| Stamp { ts: syn.tsval, second: now.as_secs() };
        let next = self.syn.seq.wrapping_add(1);
        *self = Self {
            state: State::SynRecv { until: now + SYN_RECV_LEN },
            syn_ack_at: Some(now),
            recent: timestamps.and(self.syn.timestamps).map(stamp),
            rcv_nxt: next,
            rcv_wup: next,
            client_fin: None,
            server_fin: None,
            ..*self
        };
    }

    /// The ACK of the SYN-ACK arrived: the first round-trip measurement.
    fn established(&mut self, now: Duration) {
        self.state = State::Full;
        if let Some(sent) = self.syn_ack_at {
            // tcp_rtt_estimator(): srtt = rtt, rttvar = 4 * rtt / 2, at least TCP_RTO_MIN.
            let rtt = now.saturating_sub(sent);
            self.rto = rtt + (rtt * 2).max(TCP_RTO_MIN);
        }
        if let Some(recent) = &mut self.recent {
            recent.second = now.as_secs(); // tcp_create_openreq_child()
        }
    }

    /// tcp_paws_discard(), tcp_paws_reject(): the segment's timestamp is too old.
    fn is_too_old(&self, timestamps: Option<Timestamps>) -> bool {
        let window = match self.state {
            State::Full => TCP_PAWS_WINDOW,
            _ => 0,
        };
        matches!((self.recent, timestamps), (Some(recent), Some(t)) if older(t.tsval, recent.ts, window))
    }

    /// tcp_replace_ts_recent(), for a segment at the left edge: RFC 7323 4.3.
    fn update_recent(&mut self, now: Duration, seq: u32, end: u32, timestamps: Option<Timestamps>) {
        let (Some(recent), Some(Timestamps { tsval, .. })) = (&mut self.recent, timestamps) else { return };
        if !before(self.rcv_wup, seq) && !before(end, self.rcv_wup) && !older(tsval, recent.ts, 0) {
            *recent = Stamp { ts: tsval, second: now.as_secs() };
        }
    }

    /// Advances the state of the server's socket once its FIN was sent and
    /// acknowledged.
    fn close(&mut self, now: Duration) -> Change {
        let Some(ServerFin { active, acked: true, orphan, .. }) = self.server_fin else {
            return Change::None;
        };
        let finished = self.client_fin == Some(self.rcv_nxt);
        match self.state {
            // FIN_WAIT1 or FIN_WAIT2 by a FIN, or CLOSING by the ACK.
            State::Full | State::FinWait2 { .. } if active && finished => self.time_wait(now),
            State::Full if active && orphan => {
                self.state = State::FinWait2 { until: now + TCP_FIN_TIMEOUT };
                Change::TimeWait(self.recent)
            }
            State::Full if !active => Change::Closed, // LAST_ACK
            _ => Change::None,
        }
    }

    fn time_wait(&mut self, now: Duration) -> Change {
        self.state = State::TimeWait { until: now + TCP_TIMEWAIT_LEN };
        Change::TimeWait(self.recent)
    }
}

/// include/net/tcp.h: before(), of sequence numbers.
fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Whether the TSval `ts` is more than `window` ticks before `recent`.
pub(super) fn older(ts: u32, recent: u32, window: i32) -> bool {
    recent.wrapping_sub(ts).cast_signed() > window
}
