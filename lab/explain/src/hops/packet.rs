//! A frame as it is told of: an IPv4 packet of TCP, UDP or ICMP.
//!
//! ARP, IPv6, the membership reports of IGMP and whatever is malformed are not
//! told of.
//!
//! - RFC 792, the types and codes of ICMP; RFC 1191 4, "next-hop MTU"

use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IpNumber, Ipv4HeaderSlice};

use faultlab_net::capture::Frame;
use faultlab_net::wire::segment::{Flags, Header, Macs};

/// The length of an Ethernet header.
const ETHERNET: usize = 14;

/// A packet on a link.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The sender's and the receiver's Ethernet addresses.
    pub macs: Macs,
    /// Whom it is from.
    pub src: Ipv4Addr,
    /// Whom it is for.
    pub dst: Ipv4Addr,
    /// The identification, which no router changes.
    pub id: u16,
    /// What is in it.
    pub what: What,
}

/// What is in it.
#[derive(Debug, Clone)]
pub enum What {
    /// A segment, and the length of its payload.
    Tcp(Header, usize),
    /// The ports, and the length of the payload.
    Udp(u16, u16, u16),
    /// A message of ICMP in a word or two.
    Icmp(String),
    /// A part of a packet.
    Fragment,
}

/// What stays the same when a router passes a packet on, NAT or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    id: u16,
    segment: Option<(u32, u32, Flags, usize)>,
    other: String,
}

/// Hashed by what tells packets apart in most cases: there are many.
impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let seq = self.segment.map_or(0, |(seq, ..)| seq);
        state.write_u64(u64::from(seq) << 16 | u64::from(self.id));
    }
}

impl Packet {
    /// The packet in a frame. Its payload need not have been kept.
    #[must_use]
    pub fn read(frame: &Frame) -> Option<Self> {
        let macs = Macs::of(&frame.bytes)?;
        if frame.bytes.get(12..ETHERNET)? != [8, 0] {
            return None;
        }
        let ip = Ipv4HeaderSlice::from_slice(&frame.bytes[ETHERNET..]).ok()?;
        let body = &frame.bytes[ETHERNET + ip.slice().len()..];
        let be16 = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let what = match ip.protocol() {
            _ if ip.is_fragmenting_payload() => What::Fragment,
            IpNumber::TCP => {
                let (header, length) = Header::parse(&frame.bytes)?;
                What::Tcp(header, length)
            }
            IpNumber::UDP => What::Udp(be16(0)?, be16(2)?, be16(4)?.saturating_sub(8)),
            IpNumber::ICMP => What::Icmp(match (*body.first()?, *body.get(1)?) {
                (0, _) => "echo reply".to_owned(),
                (3, 4) => format!("frag-needed mtu {}", be16(6)?),
                (3, _) => "unreachable".to_owned(),
                (5, _) => "redirect".to_owned(),
                (8, _) => "echo".to_owned(),
                (11, _) => "time-exceeded".to_owned(),
                (kind, _) => format!("icmp type {kind}"),
            }),
            _ => return None,
        };
        Some(Self { macs, src: ip.source_addr(), dst: ip.destination_addr(), id: ip.identification(), what })
    }

    /// What a router leaves as it is. A wire may change a segment's options.
    #[must_use]
    pub fn content(&self) -> Content {
        let (segment, other) = match &self.what {
            What::Tcp(h, length) => (Some((h.seq, h.ack, h.flags, *length)), String::new()),
            What::Udp(_, _, length) => (None, length.to_string()),
            What::Icmp(word) => (None, word.clone()),
            What::Fragment => (None, "fragment".to_owned()),
        };
        Content { id: self.id, segment, other }
    }

    /// How many sequence numbers a segment takes: its payload's, SYN and FIN.
    #[must_use] 
    pub fn sequence_length(&self) -> u32 {
        let What::Tcp(header, length) = &self.what else { return 0 };
        let flag = |flag: Flags| u32::from(header.flags.contains(flag));
        u32::try_from(*length).unwrap_or(u32::MAX) + flag(Flags::SYN) + flag(Flags::FIN)
    }

    /// From where to where, with the ports or 0.
    #[must_use]
    pub fn ends(&self) -> (SocketAddrV4, SocketAddrV4) {
        let (src, dst) = match &self.what {
            What::Tcp(h, _) => return (h.src, h.dst),
            What::Udp(src, dst, _) => (*src, *dst),
            What::Icmp(_) | What::Fragment => (0, 0),
        };
        (SocketAddrV4::new(self.src, src), SocketAddrV4::new(self.dst, dst))
    }

    /// From where to where, with ports where there are ports.
    #[must_use]
    pub fn addresses(&self) -> (String, String) {
        match &self.what {
            What::Tcp(h, _) => (h.src.to_string(), h.dst.to_string()),
            What::Udp(src, dst, _) => (format!("{}:{src}", self.src), format!("{}:{dst}", self.dst)),
            What::Icmp(_) | What::Fragment => (self.src.to_string(), self.dst.to_string()),
        }
    }
}
