//! A conntrack entry, in the format of `conntrack -L`.

use std::fmt;
use std::time::Duration;

use super::Tuple;
use crate::netlink::nfnetlink::{Attribute, Message};

// include/uapi/linux/netfilter/nfnetlink_conntrack.h: enum ctattr_type and the
// enums nested in it.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_ID: u16 = 12;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// What conntrack thinks a TCP connection is doing.
/// include/uapi/linux/netfilter/nf_conntrack_tcp.h: enum tcp_conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpState {
    /// No packet was seen.
    None,
    /// A SYN was seen.
    SynSent,
    /// A SYN-ACK was seen.
    SynRecv,
    /// The handshake is complete.
    Established,
    /// One side has sent a FIN.
    FinWait,
    /// The FIN was acknowledged.
    CloseWait,
    /// The other side has sent a FIN too.
    LastAck,
    /// The last ACK was seen.
    TimeWait,
    /// A RST was seen.
    Close,
    /// SYNs were seen in both directions.
    SynSent2,
    /// A state this program does not know.
    Other(u8),
}

impl From<u8> for TcpState {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for TcpState {
    /// net/netfilter/nf_conntrack_proto_tcp.c: tcp_conntrack_names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
            Self::Other(number) => return write!(f, "{number}"),
        })
    }
}

/// The status bits of an entry.
/// include/uapi/linux/netfilter/nf_conntrack_common.h: enum ip_conntrack_status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u32);

impl Status {
    /// Packets were seen in both directions.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// Not to be dropped early when the table is full.
    pub const ASSURED: Self = Self(1 << 2);
    /// In the hash table: the first packet has left.
    pub const CONFIRMED: Self = Self(1 << 3);
    /// The source is translated in the original direction.
    pub const SRC_NAT: Self = Self(1 << 4);
    /// The destination is translated in the original direction.
    pub const DST_NAT: Self = Self(1 << 5);
    /// Being deleted.
    pub const DYING: Self = Self(1 << 9);

    /// The kernel's bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A flow in the conntrack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The direction of the first packet, as it arrived.
    pub original: Tuple,
    /// The direction of the replies, as they arrive: before translation back.
    pub reply: Tuple,
    /// The status bits.
    pub status: Status,
    /// The time until the entry expires, in whole seconds of the machine's clock.
    /// In a destroy event: `None` before Linux 5.11 (86d21fc74745), or if no time
    /// was left.
    pub timeout: Option<Duration>,
    /// The state of a TCP connection. In a destroy event: `None` before Linux
    /// 5.11.
    pub tcp_state: Option<TcpState>,
    /// Distinguishes the entry from others of the same flow; otherwise
    /// meaningless.
    pub id: u32,
}

impl Entry {
    pub(super) fn decode(message: &Message<'_>) -> Option<Self> {
        message.family()?;
        let (mut original, mut reply) = (None, None);
        let (mut status, mut timeout, mut tcp_state, mut id) = (Status::default(), None, None, 0);
        for attribute in message.attributes() {
            match attribute.kind {
                CTA_TUPLE_ORIG => original = Tuple::decode(&attribute),
                CTA_TUPLE_REPLY => reply = Tuple::decode(&attribute),
                CTA_STATUS => status = Status(u32::from_be_bytes(attribute.bytes()?)),
                CTA_TIMEOUT => {
                    timeout = Some(Duration::from_secs(u32::from_be_bytes(attribute.bytes()?).into()));
                }
                CTA_PROTOINFO => tcp_state = decode_tcp_state(&attribute),
                CTA_ID => id = u32::from_be_bytes(attribute.bytes()?),
                _ => {}
            }
        }
        Some(Self { original: original?, reply: reply?, status, timeout, tcp_state, id })
    }

    /// The flow in one line: its source and destination, and the addresses that
    /// NAT gives it.
    #[must_use]
    pub fn flow(&self) -> String {
        let (name, _) = self.original.transport.protocol();
        let (source, destination) = self.original.sides();
        let mut flow = format!("{name} {source} > {destination}");
        let (answers_from, answers_to) = self.reply.sides();
        if answers_to != source {
            flow.push_str(&format!(", as from {answers_to}"));
        }
        if answers_from != destination {
            flow.push_str(&format!(", to {answers_from}"));
        }
        flow
    }

    /// The state of a TCP connection, or else whether the flow was answered.
    #[must_use]
    pub fn state(&self) -> String {
        match self.tcp_state {
            Some(state) => state.to_string(),
            None if self.status.contains(Status::SEEN_REPLY) => "REPLIED".to_owned(),
            None => "UNREPLIED".to_owned(),
        }
    }

    /// Whether this is the entry of the flow that has this tuple in either
    /// direction.
    #[must_use]
    pub fn is_of(&self, tuple: &Tuple) -> bool {
        self.original == *tuple || self.reply == *tuple
    }
}

fn decode_tcp_state(protoinfo: &Attribute<'_>) -> Option<TcpState> {
    let tcp = protoinfo.nested().find(|attribute| attribute.kind == CTA_PROTOINFO_TCP)?;
    let state = tcp.nested().find(|attribute| attribute.kind == CTA_PROTOINFO_TCP_STATE)?;
    Some(TcpState::from(*state.value.first()?))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = self.original.transport.protocol();
        write!(f, "{name} {number}")?;
        if let Some(timeout) = self.timeout {
            write!(f, " {}", timeout.as_secs())?;
        }
        if let Some(state) = self.tcp_state {
            write!(f, " {state}")?;
        }
        write!(f, " {}", self.original)?;
        if !self.status.contains(Status::SEEN_REPLY) {
            f.write_str(" [UNREPLIED]")?;
        }
        write!(f, " {}", self.reply)?;
        if self.status.contains(Status::ASSURED) {
            f.write_str(" [ASSURED]")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Transport;
    use super::*;
    use crate::netlink::nfnetlink::messages;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn entries_display_as_conntrack_prints_them() {
        let mut entry = Entry {
            original: Tuple::tcp((CLIENT, 5000), (SERVER, 80)),
            reply: Tuple::tcp((SERVER, 80), (CLIENT, 5000)),
            status: Status(0x0e),
            timeout: Some(Duration::from_secs(431_999)),
            tcp_state: Some(TcpState::Established),
            id: 7,
        };
        assert_eq!(
            entry.to_string(),
            "tcp 6 431999 ESTABLISHED src=10.0.1.2 dst=192.0.2.2 sport=5000 dport=80 \
             src=192.0.2.2 dst=10.0.1.2 sport=80 dport=5000 [ASSURED]"
        );
        entry.original = Tuple::echo(CLIENT, SERVER, 9);
        entry.reply =
            Tuple { transport: Transport::Other(47), source: SERVER.into(), destination: CLIENT.into() };
        entry.status = Status::CONFIRMED;
        entry.tcp_state = None;
        assert_eq!(
            entry.to_string(),
            "icmp 1 431999 src=10.0.1.2 dst=192.0.2.2 type=8 code=0 id=9 [UNREPLIED] src=192.0.2.2 dst=10.0.1.2"
        );
    }

    #[test]
    fn a_flow_is_told_with_its_translations() {
        let nat = Ipv4Addr::new(192, 0, 2, 1);
        let mut entry = Entry {
            original: Tuple::tcp((CLIENT, 5000), (SERVER, 80)),
            reply: Tuple::tcp((SERVER, 80), (CLIENT, 5000)),
            status: Status(0x0e),
            timeout: None,
            tcp_state: None,
            id: 7,
        };
        assert_eq!(entry.flow(), "tcp 10.0.1.2:5000 > 192.0.2.2:80");
        entry.reply = Tuple::tcp((SERVER, 9000), (nat, 1024));
        assert_eq!(
            entry.flow(),
            "tcp 10.0.1.2:5000 > 192.0.2.2:80, as from 192.0.2.1:1024, to 192.0.2.2:9000"
        );
        entry.original = Tuple::echo(CLIENT, SERVER, 9);
        entry.reply = Tuple::echo(SERVER, CLIENT, 9);
        assert_eq!((entry.flow(), entry.state()), ("icmp 10.0.1.2 > 192.0.2.2".into(), "REPLIED".into()));
    }

    fn message_of(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, libc::AF_INET.to_le_bytes()[0], 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&message_of(&payload)) {
                let _ = Entry::decode(&message).map(|entry| entry.to_string());
            }
        }

        /// Well-formed attributes with arbitrary values.
        #[test]
        fn any_values_are_decoded(
            values in proptest::collection::vec((0u16..14, 0u16..4, 0u16..8, proptest::collection::vec(any::<u8>(), 0..9)), 0..9),
        ) {
            let payload: Vec<u8> =
                values.iter().flat_map(|(a, b, c, value)| nla(*a, &nla(*b, &nla(*c, value)))).collect();
            for message in messages(&message_of(&payload)) {
                let _ = Entry::decode(&message).map(|entry| entry.to_string());
            }
        }
    }
}
