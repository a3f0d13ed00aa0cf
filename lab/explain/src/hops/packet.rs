//! The packet in a frame, as it is reported: IPv4 or IPv6 with TCP, UDP or ICMP.
//!
//! ARP, neighbour discovery, IGMP and MLD reports, and malformed packets are not
//! reported: no probe sends them.
//!
//! - RFC 792, the types and codes of ICMP; RFC 1191 4, "next-hop MTU"
//! - RFC 4443, the same for ICMPv6; RFC 4861 4, RFC 3810 5, the types left out

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use etherparse::IpNumber;

use faultlab_net::capture::Frame;
use faultlab_net::wire::segment::{Flags, Header, IpHeader, Macs, Numbers, Timestamps};

/// A packet on a link.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The sender's and the receiver's Ethernet addresses.
    pub macs: Macs,
    /// The source address.
    pub src: IpAddr,
    /// The destination address.
    pub dst: IpAddr,
    /// The IP identification, which routers do not change. IPv6 has none.
    pub id: Option<u16>,
    /// The payload.
    pub what: Payload,
}

/// The payload of a packet.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A segment, and the length of its payload.
    Tcp(Header, usize),
    /// The ports, and the length of the payload.
    Udp(u16, u16, u16),
    /// A short description of an ICMP message.
    Icmp(String),
    /// A fragment.
    Fragment,
}

/// The part of a packet that a router does not change, with or without NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    id: Option<u16>,
    segment: Option<Numbers>,
    other: String,
}

/// Hashes only the fields in which most packets differ, for speed.
impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let seq = self.segment.map_or(0, |numbers| numbers.seq);
        state.write_u64(u64::from(seq) << 16 | u64::from(self.id.unwrap_or(0)));
    }
}

impl Packet {
    /// Parses the packet in a frame. The frame's payload may be truncated.
    #[must_use]
    pub fn read(frame: &Frame) -> Option<Self> {
        let macs = Macs::of(&frame.bytes)?;
        let IpHeader { src, dst, protocol, id, is_fragment, payload } = IpHeader::of_frame(&frame.bytes)?;
        let body = frame.bytes.get(payload.start..)?;
        let be16 = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let what = match protocol {
            _ if is_fragment => Payload::Fragment,
            IpNumber::TCP => {
                let (header, length) = Header::parse(&frame.bytes)?;
                Payload::Tcp(header, length)
            }
            IpNumber::UDP => Payload::Udp(be16(0)?, be16(2)?, be16(4)?.saturating_sub(8)),
            IpNumber::ICMP => Payload::Icmp(match (*body.first()?, *body.get(1)?) {
                (0, _) => "echo reply".to_owned(),
                (3, 4) => format!("frag-needed mtu {}", be16(6)?),
                (3, _) => "unreachable".to_owned(),
                (5, _) => "redirect".to_owned(),
                (8, _) => "echo".to_owned(),
                (11, _) => "time-exceeded".to_owned(),
                (kind, _) => format!("icmp type {kind}"),
            }),
            IpNumber::IPV6_ICMP => Payload::Icmp(match *body.first()? {
                1 => "unreachable".to_owned(),
                2 => format!("packet-too-big mtu {}", u32::from(be16(4)?) << 16 | u32::from(be16(6)?)),
                3 => "time-exceeded".to_owned(),
                128 => "echo".to_owned(),
                129 => "echo reply".to_owned(),
                // Multicast listener, router and neighbour messages.
                130..=137 | 143 => return None,
                kind => format!("icmpv6 type {kind}"),
            }),
            _ => return None,
        };
        Some(Self { macs, src, dst, id, what })
    }

    /// The content that a router leaves unchanged. A wire may change a segment's
    /// options.
    #[must_use]
    pub fn content(&self) -> Content {
        let (segment, other) = match &self.what {
            Payload::Tcp(header, length) => (Some(header.numbers(*length)), String::new()),
            Payload::Udp(_, _, length) => (None, length.to_string()),
            Payload::Icmp(word) => (None, word.clone()),
            Payload::Fragment => (None, "fragment".to_owned()),
        };
        Content { id: self.id, segment, other }
    }

    /// The headers of a segment.
    pub(super) fn header(&self) -> Option<&Header> {
        if let Payload::Tcp(header, _) = &self.what { Some(header) } else { None }
    }

    /// The timestamps of a segment, if it has them.
    pub(super) fn timestamps(&self) -> Option<Timestamps> {
        self.header().and_then(|header| header.timestamps)
    }

    /// How many sequence numbers a segment takes: those of its payload, SYN and FIN.
    #[must_use]
    pub fn sequence_length(&self) -> u32 {
        let Payload::Tcp(header, length) = &self.what else { return 0 };
        let flag = |flag: Flags| u32::from(header.flags.contains(flag));
        u32::try_from(*length).unwrap_or(u32::MAX) + flag(Flags::SYN) + flag(Flags::FIN)
    }

    /// Source and destination, with the ports or 0.
    #[must_use]
    pub fn endpoints(&self) -> (SocketAddr, SocketAddr) {
        let (src, dst) = match &self.what {
            Payload::Tcp(h, _) => return (h.src, h.dst),
            Payload::Udp(src, dst, _) => (*src, *dst),
            Payload::Icmp(_) | Payload::Fragment => (0, 0),
        };
        (SocketAddr::new(self.src, src), SocketAddr::new(self.dst, dst))
    }

    /// Source and destination, with the ports if there are any.
    #[must_use]
    pub fn addresses(&self) -> (String, String) {
        match &self.what {
            Payload::Tcp(..) | Payload::Udp(..) => {
                let (src, dst) = self.endpoints();
                (src.to_string(), dst.to_string())
            }
            Payload::Icmp(_) | Payload::Fragment => (self.src.to_string(), self.dst.to_string()),
        }
    }
}
