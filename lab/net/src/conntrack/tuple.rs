//! One direction of a flow, and what tells flows apart.

use std::fmt;
use std::net::Ipv4Addr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoTuple, Protocol as ProtocolNumber, Tuple as TupleAttribute,
};

use crate::network::nfnetlink::Attribute;

// include/uapi/linux/netfilter/nfnetlink_conntrack.h: enum ctattr_tuple and those nested in it.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;

/// include/uapi/linux/icmp.h: ICMP_ECHO.
const ICMP_ECHO: u8 = 8;

/// What tells flows of one pair of addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// ICMP.
    Icmp {
        /// The type of the message: 8 for an echo request.
        kind: u8,
        /// Its code.
        code: u8,
        /// Its identifier.
        id: u16,
    },
    /// TCP.
    Tcp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// UDP.
    Udp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// Another protocol, by its number.
    Other(u8),
}

impl Transport {
    /// The protocol's name and number, as `conntrack -L` starts a line.
    pub(super) fn protocol(self) -> (&'static str, u8) {
        match self {
            Self::Icmp { .. } => ("icmp", 1),
            Self::Tcp { .. } => ("tcp", 6),
            Self::Udp { .. } => ("udp", 17),
            Self::Other(number) => ("unknown", number),
        }
    }
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The protocol and its ports.
    pub transport: Transport,
    /// Where the packets come from.
    pub source: Ipv4Addr,
    /// Where they go to.
    pub destination: Ipv4Addr,
}

impl Tuple {
    /// The packets of a TCP connection from one end to the other.
    #[must_use]
    pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Self {
        Self {
            transport: Transport::Tcp { source: from.1, destination: to.1 },
            source: from.0,
            destination: to.0,
        }
    }

    /// The datagrams from one UDP socket to another.
    #[must_use]
    pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Self {
        Self {
            transport: Transport::Udp { source: from.1, destination: to.1 },
            source: from.0,
            destination: to.0,
        }
    }

    /// The echo requests of one identifier.
    #[must_use]
    pub fn echo(source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Self {
        Self { transport: Transport::Icmp { kind: ICMP_ECHO, code: 0, id }, source, destination }
    }

    /// Where it comes from and where it goes to, with ports where there are ports.
    pub(super) fn sides(&self) -> (String, String) {
        match self.transport {
            Transport::Tcp { source, destination } | Transport::Udp { source, destination } => {
                (format!("{}:{source}", self.source), format!("{}:{destination}", self.destination))
            }
            Transport::Icmp { .. } | Transport::Other(_) => {
                (self.source.to_string(), self.destination.to_string())
            }
        }
    }

    /// The tuple as a request names it.
    pub(super) fn attribute(&self) -> ConntrackAttribute {
        let mut transport = vec![ProtoTuple::Protocol(ProtocolNumber::from(self.transport.protocol().1))];
        match self.transport {
            Transport::Tcp { source, destination } | Transport::Udp { source, destination } => {
                transport.extend([ProtoTuple::SourcePort(source), ProtoTuple::DestinationPort(destination)]);
            }
            Transport::Icmp { kind, code, id } => transport.extend([
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_ID, id.to_be_bytes().into())),
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_TYPE, vec![kind])),
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_CODE, vec![code])),
            ]),
            Transport::Other(_) => {}
        }
        ConntrackAttribute::CtaTupleOrig(vec![
            TupleAttribute::Ip(vec![
                IPTuple::SourceAddress(self.source.into()),
                IPTuple::DestinationAddress(self.destination.into()),
            ]),
            TupleAttribute::Proto(transport),
        ])
    }

    pub(super) fn decode(attribute: &Attribute<'_>) -> Option<Self> {
        let (mut source, mut destination) = (None, None);
        let mut number = None;
        let (mut ports, mut icmp) = ((0, 0), (0, 0, 0));
        for part in attribute.nested() {
            for value in part.nested() {
                match (part.kind, value.kind) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC) => source = value.bytes::<4>(),
                    (CTA_TUPLE_IP, CTA_IP_V4_DST) => destination = value.bytes::<4>(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => number = value.bytes::<1>(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports.0 = u16::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports.1 = u16::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_TYPE) => icmp.0 = u8::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_CODE) => icmp.1 = u8::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_ID) => icmp.2 = u16::from_be_bytes(value.bytes()?),
                    _ => {}
                }
            }
        }
        let transport = match number?[0] {
            1 => Transport::Icmp { kind: icmp.0, code: icmp.1, id: icmp.2 },
            6 => Transport::Tcp { source: ports.0, destination: ports.1 },
            17 => Transport::Udp { source: ports.0, destination: ports.1 },
            other => Transport::Other(other),
        };
        Some(Self { transport, source: source?.into(), destination: destination?.into() })
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={} dst={}", self.source, self.destination)?;
        match self.transport {
            Transport::Tcp { source, destination } | Transport::Udp { source, destination } => {
                write!(f, " sport={source} dport={destination}")
            }
            Transport::Icmp { kind, code, id } => write!(f, " type={kind} code={code} id={id}"),
            Transport::Other(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tuple_is_decoded_as_it_was_encoded(
            kind in 0u8..4, source: [u8; 4], destination: [u8; 4], a: u16, b: u16,
        ) {
            use netlink_packet_core::Emitable;
            let transport = match kind {
                0 => Transport::Tcp { source: a, destination: b },
                1 => Transport::Udp { source: a, destination: b },
                2 => Transport::Icmp { kind: a.to_be_bytes()[0], code: a.to_be_bytes()[1], id: b },
                _ => Transport::Other(132),
            };
            let tuple = Tuple { transport, source: source.into(), destination: destination.into() };
            let attribute = tuple.attribute();
            let mut bytes = vec![0; attribute.buffer_len()];
            attribute.emit(&mut bytes);
            let read = crate::network::nfnetlink::attributes(&bytes).next().and_then(|a| Tuple::decode(&a));
            prop_assert_eq!(read, Some(tuple));
        }
    }
}
