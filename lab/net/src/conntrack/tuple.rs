//! One direction of a flow, and what distinguishes flows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoTuple, Protocol as ProtocolNumber, Tuple as TupleAttribute,
};

use crate::netlink::nfnetlink::Attribute;
use crate::topology::Family;

// include/uapi/linux/netfilter/nfnetlink_conntrack.h: enum ctattr_tuple and the
// enums nested in it.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// include/uapi/linux/icmp.h: ICMP_ECHO.
const ICMP_ECHO: u8 = 8;
/// include/uapi/linux/icmpv6.h: ICMPV6_ECHO_REQUEST.
const ICMPV6_ECHO_REQUEST: u8 = 128;

/// What distinguishes flows between the same two addresses.
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
    /// ICMPv6.
    Icmpv6 {
        /// The type of the message: 128 for an echo request.
        kind: u8,
        /// Its code.
        code: u8,
        /// Its identifier.
        id: u16,
    },
    /// Another protocol, by its number.
    Other(u8),
}

impl Transport {
    /// The protocol's name and number, as `conntrack -L` prints them first.
    pub(super) fn protocol(self) -> (&'static str, u8) {
        match self {
            Self::Icmp { .. } => ("icmp", 1),
            Self::Tcp { .. } => ("tcp", 6),
            Self::Udp { .. } => ("udp", 17),
            Self::Icmpv6 { .. } => ("icmpv6", 58),
            Self::Other(number) => ("unknown", number),
        }
    }
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The protocol and its ports.
    pub transport: Transport,
    /// The source of the packets.
    pub source: IpAddr,
    /// The destination of the packets.
    pub destination: IpAddr,
}

impl Tuple {
    /// The packets of a TCP connection from one end to the other.
    #[must_use]
    pub fn tcp(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Self {
        let (from, to) = (from.into(), to.into());
        let transport = Transport::Tcp { source: from.port(), destination: to.port() };
        Self { transport, source: from.ip(), destination: to.ip() }
    }

    /// The datagrams from one UDP socket to another.
    #[must_use]
    pub fn udp(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Self {
        let (from, to) = (from.into(), to.into());
        let transport = Transport::Udp { source: from.port(), destination: to.port() };
        Self { transport, source: from.ip(), destination: to.ip() }
    }

    /// The echo requests with this identifier.
    #[must_use]
    pub fn echo(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, id: u16) -> Self {
        let (source, destination) = (source.into(), destination.into());
        let transport = match Family::of(source) {
            Family::V4 => Transport::Icmp { kind: ICMP_ECHO, code: 0, id },
            Family::V6 => Transport::Icmpv6 { kind: ICMPV6_ECHO_REQUEST, code: 0, id },
        };
        Self { transport, source, destination }
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// Its source and destination, with the ports if it has any.
    pub(super) fn sides(&self) -> (String, String) {
        match self.transport {
            Transport::Tcp { source, destination } | Transport::Udp { source, destination } => {
                let end = |address, port| SocketAddr::new(address, port).to_string();
                (end(self.source, source), end(self.destination, destination))
            }
            Transport::Icmp { .. } | Transport::Icmpv6 { .. } | Transport::Other(_) => {
                (self.source.to_string(), self.destination.to_string())
            }
        }
    }

    /// The tuple as the attributes of a request.
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
            Transport::Icmpv6 { kind, code, id } => transport.extend([
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMPV6_ID, id.to_be_bytes().into())),
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMPV6_TYPE, vec![kind])),
                ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMPV6_CODE, vec![code])),
            ]),
            Transport::Other(_) => {}
        }
        ConntrackAttribute::CtaTupleOrig(vec![
            TupleAttribute::Ip(vec![
                IPTuple::SourceAddress(self.source),
                IPTuple::DestinationAddress(self.destination),
            ]),
            TupleAttribute::Proto(transport),
        ])
    }

    pub(super) fn decode(attribute: &Attribute<'_>) -> Option<Self> {
        let (mut source, mut destination) = (None::<IpAddr>, None::<IpAddr>);
        let mut number = None;
        let (mut ports, mut icmp) = ((0, 0), (0, 0, 0));
        for part in attribute.nested() {
            for value in part.nested() {
                match (part.kind, value.kind) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC) => source = value.bytes::<4>().map(Into::into),
                    (CTA_TUPLE_IP, CTA_IP_V4_DST) => destination = value.bytes::<4>().map(Into::into),
                    (CTA_TUPLE_IP, CTA_IP_V6_SRC) => source = value.bytes::<16>().map(Into::into),
                    (CTA_TUPLE_IP, CTA_IP_V6_DST) => destination = value.bytes::<16>().map(Into::into),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => number = value.bytes::<1>(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports.0 = u16::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports.1 = u16::from_be_bytes(value.bytes()?),
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE) => {
                        icmp.0 = u8::from_be_bytes(value.bytes()?);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE) => {
                        icmp.1 = u8::from_be_bytes(value.bytes()?);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID) => {
                        icmp.2 = u16::from_be_bytes(value.bytes()?);
                    }
                    _ => {}
                }
            }
        }
        let transport = match number?[0] {
            1 => Transport::Icmp { kind: icmp.0, code: icmp.1, id: icmp.2 },
            6 => Transport::Tcp { source: ports.0, destination: ports.1 },
            17 => Transport::Udp { source: ports.0, destination: ports.1 },
            58 => Transport::Icmpv6 { kind: icmp.0, code: icmp.1, id: icmp.2 },
            other => Transport::Other(other),
        };
        // A flow's addresses are all of one family.
        let (source, destination) = (source?, destination?);
        (Family::of(source) == Family::of(destination)).then_some(Self { transport, source, destination })
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={} dst={}", self.source, self.destination)?;
        match self.transport {
            Transport::Tcp { source, destination } | Transport::Udp { source, destination } => {
                write!(f, " sport={source} dport={destination}")
            }
            Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id } => {
                write!(f, " type={kind} code={code} id={id}")
            }
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
            kind in 0u8..4, v6: bool, source: [u8; 16], destination: [u8; 16], a: u16, b: u16,
        ) {
            use netlink_packet_core::Emitable;
            let transport = match kind {
                0 => Transport::Tcp { source: a, destination: b },
                1 => Transport::Udp { source: a, destination: b },
                2 if v6 => Transport::Icmpv6 { kind: a.to_be_bytes()[0], code: a.to_be_bytes()[1], id: b },
                2 => Transport::Icmp { kind: a.to_be_bytes()[0], code: a.to_be_bytes()[1], id: b },
                _ => Transport::Other(132),
            };
            let address = |bytes: [u8; 16]| match bytes.first_chunk::<4>() {
                Some(v4) if !v6 => IpAddr::from(*v4),
                _ => IpAddr::from(bytes),
            };
            let tuple = Tuple { transport, source: address(source), destination: address(destination) };
            let attribute = tuple.attribute();
            let mut bytes = vec![0; attribute.buffer_len()];
            attribute.emit(&mut bytes);
            let read = crate::netlink::nfnetlink::attributes(&bytes).next().and_then(|a| Tuple::decode(&a));
            prop_assert_eq!(read, Some(tuple));
        }
    }
}
