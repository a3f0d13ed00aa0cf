//! The TCP sockets of one network namespace, as `ss -tan` lists them.
//!
//! Reading list: net/ipv4/inet_diag.c; include/uapi/linux/inet_diag.h `struct
//! inet_diag_msg`; include/net/tcp_states.h for the names; sock_diag(7).
//!
//! The message is parsed by hand, and only its fixed part: netlink-packet-sock-diag
//! omits the `idiag_expires` of a TIME_WAIT socket, and `tcp_info` has grown with
//! every kernel.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use faultlab_base::error::{Error, Result};
use faultlab_net::network::{Namespace, netlink};
use faultlab_net::wire::all as wires;

/// include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// TCP_ESTABLISHED to TCP_NEW_SYN_RECV. Not TCP_BOUND_INACTIVE, which only newer
/// kernels list.
const STATES: u32 = 0x1ffe;

/// The length of `struct inet_diag_sockid`.
const ID: usize = 48;

/// A TCP socket over IPv4 or IPv6.
///
/// An IPv4 connection of an IPv6 socket has IPv4 addresses here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The state. A FIN_WAIT2 socket without a process stays FIN_WAIT2, with a timer
    /// of the kind `timewait`.
    pub state: State,
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's address; `0.0.0.0:0` or `[::]:0` for a listener.
    pub remote: SocketAddr,
    /// Bytes not yet read; for a listener, connections not yet accepted.
    pub recv_queue: u32,
    /// Bytes not yet acknowledged; for a listener, its backlog.
    pub send_queue: u32,
    /// The running timer, if any.
    pub timer: Option<Timer>,
    /// The owner's user id.
    pub uid: u32,
    /// The inode of the socket; 0 if no process has it open.
    pub inode: u32,
    /// AF_INET or AF_INET6: the family of the socket, whatever its addresses are.
    family: u8,
    /// `struct inet_diag_sockid`, by which the kernel finds the socket again.
    id: [u8; ID],
}

/// A socket's state: include/net/tcp_states.h, without the `TCP_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are RFC 9293's")]
pub enum State {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynRecv,
    /// A state that this program does not know.
    Other(u8),
}

impl State {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::NewSynRecv => "NEW_SYN_RECV",
            Self::Other(number) => return write!(f, "{number}"),
        })
    }
}

/// A socket's running timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Its purpose.
    pub kind: TimerKind,
    /// The time until it expires, on the machine's clock, in milliseconds.
    pub expires: Duration,
    /// The number of retransmissions so far; of probes for `keepalive` and `persist`.
    pub retransmits: u8,
}

/// The purpose of a timer: `idiag_timer`, with the names of ss(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKind {
    /// Retransmission, tail loss probe or reordering.
    On,
    /// Keepalive, or the end of a SYN_RECV.
    Keepalive,
    /// The end of a TIME_WAIT, or of a FIN_WAIT2 without a process.
    TimeWait,
    /// The zero-window probe.
    Persist,
    /// A timer that this program does not know.
    Other(u8),
}

impl TimerKind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => return None,
            1 => Self::On,
            2 => Self::Keepalive,
            3 => Self::TimeWait,
            4 => Self::Persist,
            other => Self::Other(other),
        })
    }
}

impl fmt::Display for TimerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::On => "on",
            Self::Keepalive => "keepalive",
            Self::TimeWait => "timewait",
            Self::Persist => "persist",
            Self::Other(number) => return write!(f, "{number}"),
        })
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer:({},{:.3}s,{})", self.kind, self.expires.as_secs_f64(), self.retransmits)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, local, remote, recv_queue, send_queue, .. } = self;
        write!(f, "{state:<11} {recv_queue:>6} {send_queue:>6} {local:>21} {remote:>21}")?;
        self.timer.map_or(Ok(()), |timer| write!(f, " {timer}"))
    }
}

impl Socket {
    /// Parses the fixed part of a `struct inet_diag_msg`. `None` if it is truncated
    /// or of neither family.
    fn parse(message: &[u8]) -> Option<Self> {
        // family, state, timer, retrans; the id; five numbers.
        let (&[family, state, timer, retransmits], rest) = message.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk::<ID>()?;
        let (numbers, _) = rest.split_first_chunk::<20>()?;
        let number = |index: usize| {
            let bytes = numbers.as_chunks().0[index];
            u32::from_ne_bytes(bytes)
        };
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        let word = |at: usize| id[at..].first_chunk::<16>().copied();
        let address = |at: usize| match (family, word(at)?) {
            (AF_INET, [a, b, c, d, ..]) => Some(IpAddr::from([a, b, c, d])),
            (AF_INET6, bytes) => Some(Ipv6Addr::from(bytes).to_canonical()),
            _ => None,
        };
        // A timer that is already due: newer kernels report 0, older ones may report
        // a negative number.
        let milliseconds = number(0).cast_signed().max(0).cast_unsigned();
        Some(Self {
            state: State::of(state),
            local: SocketAddr::new(address(4)?, port(0)),
            remote: SocketAddr::new(address(20)?, port(2)),
            timer: TimerKind::of(timer).map(|kind| Timer {
                kind,
                expires: Duration::from_millis(milliseconds.into()),
                retransmits,
            }),
            recv_queue: number(1),
            send_queue: number(2),
            uid: number(3),
            inode: number(4),
            family,
            id: *id,
        })
    }
}

/// Lists the TCP sockets of a namespace, including TIME_WAIT, sorted by address.
///
/// # Errors
/// [`Error::Missing`] if the kernel lacks tcp_diag.
pub fn sockets(namespace: &Namespace) -> Result<Vec<Socket>> {
    let mut sockets = vec![];
    for family in [AF_INET, AF_INET6] {
        let request = Message::request(SOCK_DIAG_BY_FAMILY, family, [0; ID]);
        let answers = netlink::dump(namespace, NETLINK_SOCK_DIAG, request).map_err(|source| match source
            .raw_os_error()
        {
            Some(libc::ENOENT | libc::EPROTONOSUPPORT) => {
                Error::missing("CONFIG_INET_DIAG (tcp_diag)", "load the module or take a kernel that has it")
            }
            _ => Error::kernel(namespace.name(), "sock_diag dump", source),
        })?;
        wires::carry();
        // Old kernels list mini-sockets of both families, regardless of the request.
        let listed = answers.iter().filter_map(|message| Socket::parse(&message.body));
        sockets.extend(listed.filter(|socket| socket.family == family));
    }
    sockets.sort_by_key(|socket| (socket.local, socket.remote, socket.state));
    Ok(sockets)
}

/// Closes a socket with SOCK_DESTROY, as `ss -K` does: its process gets ECONNABORTED,
/// its peer a RST.
///
/// # Errors
/// [`Error::Missing`] if the kernel cannot, ENOENT if the socket is gone.
pub fn destroy(namespace: &Namespace, socket: &Socket) -> Result<()> {
    let request = Message::request(SOCK_DESTROY, socket.family, socket.id);
    netlink::change(namespace, NETLINK_SOCK_DIAG, 0, request).map_err(|source| match source.raw_os_error() {
        // net/ipv4/tcp.c tcp_abort: mini-sockets can be closed from 6.0 on.
        Some(libc::EOPNOTSUPP) if socket.timer.is_some_and(|timer| timer.kind == TimerKind::TimeWait) => {
            Error::missing("SOCK_DESTROY of a TIME_WAIT", "take a kernel that has it, 6.0 or later")
        }
        // Before 4.5 the message is unknown: EINVAL.
        Some(libc::EOPNOTSUPP | libc::EINVAL) => {
            Error::missing("CONFIG_INET_DIAG_DESTROY", "take a kernel that has it, 4.5 or later")
        }
        _ => Error::kernel(namespace.name(), format!("SOCK_DESTROY {socket}"), source),
    })
}

/// A sock_diag message, as the kernel's bytes.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// `struct inet_diag_req_v2`.
    fn request(kind: u16, family: u8, id: [u8; ID]) -> Self {
        // sdiag_family, sdiag_protocol, idiag_ext (none is wanted), pad.
        let mut body = vec![family, IPPROTO_TCP, 0, 0];
        body.extend(STATES.to_ne_bytes());
        body.extend(id);
        Self { kind, body }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.body.len()].copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time_wait(expires: u32) -> Vec<u8> {
        let mut bytes = vec![AF_INET, 6, 3, 0];
        bytes.extend(80_u16.to_be_bytes());
        bytes.extend(40000_u16.to_be_bytes());
        bytes.extend([10, 0, 0, 1]);
        bytes.extend([0; 12]);
        bytes.extend([10, 0, 0, 2]);
        bytes.extend([0; 24]);
        for number in [expires, 0, 0, 1000, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_time_wait_keeps_its_timer() {
        let socket = Socket::parse(&time_wait(59_500)).expect("72 bytes of IPv4");
        assert_eq!(
            socket.to_string(),
            "TIME_WAIT        0      0           10.0.0.1:80        10.0.0.2:40000 timer:(timewait,59.500s,0)"
        );
        assert_eq!(socket.uid, 1000);
    }

    /// The same for an IPv6 socket with these addresses.
    fn time_wait_v6(local: Ipv6Addr, remote: Ipv6Addr) -> Vec<u8> {
        let mut bytes = time_wait(1);
        bytes[0] = AF_INET6;
        bytes[8..24].copy_from_slice(&local.octets());
        bytes[24..40].copy_from_slice(&remote.octets());
        bytes
    }

    #[test]
    fn ipv6_sockets_are_listed() {
        let ends = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse().expect("an address"));
        let socket = Socket::parse(&time_wait_v6(ends[0], ends[1])).expect("72 bytes of IPv6");
        assert_eq!(
            socket.to_string(),
            "TIME_WAIT        0      0      [2001:db8::1]:80   [2001:db8::2]:40000 timer:(timewait,0.001s,0)"
        );
        let mapped =
            ["::ffff:10.0.0.1", "::ffff:10.0.0.2"].map(|address| address.parse().expect("an address"));
        let socket = Socket::parse(&time_wait_v6(mapped[0], mapped[1])).expect("72 bytes of IPv6");
        assert_eq!((socket.local.to_string(), socket.family), ("10.0.0.1:80".into(), AF_INET6));
        let mut other = time_wait(1);
        other[0] = 1;
        assert_eq!(Socket::parse(&other), None);
    }

    #[test]
    fn attributes_after_the_fixed_part_do_not_matter() {
        // The tcp_info of 4.4 is 192 bytes, of 6.18 more than 270.
        let mut bytes = time_wait(1);
        bytes.extend([7; 192 + 4]);
        assert_eq!(Socket::parse(&bytes), Socket::parse(&time_wait(1)));
    }

    #[test]
    fn a_timer_that_is_due_is_at_0() {
        let socket = Socket::parse(&time_wait((-4_i32).cast_unsigned())).expect("72 bytes of IPv4");
        assert_eq!(socket.timer.expect("timewait").expires, Duration::ZERO);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        assert_eq!(Socket::parse(&time_wait(1)[..71]), None);
    }

    proptest! {
        #[test]
        fn no_message_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(family) = bytes.first_mut() {
                *family = if v6 { AF_INET6 } else { AF_INET };
            }
            if let Some(socket) = Socket::parse(&bytes) {
                let _ = socket.to_string();
            }
        }
    }
}
