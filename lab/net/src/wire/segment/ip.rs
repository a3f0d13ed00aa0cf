//! The IP header of a packet, of either version.
//!
//! - RFC 791 3.1; RFC 8200 3 and 4, the extension headers

use std::net::IpAddr;
use std::ops::Range;

use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
};

/// The length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// How many extension headers are parsed; Linux sends at most one.
const EXTENSIONS: usize = 8;

/// The parsed fields of an IP header.
#[derive(Debug, Clone)]
pub struct IpHeader {
    /// The source address.
    pub src: IpAddr,
    /// The destination address.
    pub dst: IpAddr,
    /// The protocol of the payload.
    pub protocol: IpNumber,
    /// The identification, which no router changes. IPv6 has none.
    pub id: Option<u16>,
    /// Whether the packet is a fragment.
    pub is_fragment: bool,
    /// The payload's range in the frame, by the length in the header. The frame
    /// may have been truncated before its end.
    pub payload: Range<usize>,
}

impl IpHeader {
    /// The header of the packet in an untagged Ethernet frame, which may be
    /// truncated after the header.
    #[must_use]
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        let header = match frame.get(12..ETHERNET)? {
            [0x08, 0x00] => Self::v4(packet),
            [0x86, 0xdd] => Self::v6(packet),
            _ => None,
        }?;
        let payload = header.payload.start + ETHERNET..header.payload.end + ETHERNET;
        Some(Self { payload, ..header })
    }

    fn v4(packet: &[u8]) -> Option<Self> {
        let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let start = ip.slice().len();
        Some(Self {
            src: ip.source_addr().into(),
            dst: ip.destination_addr().into(),
            protocol: ip.protocol(),
            id: Some(ip.identification()),
            is_fragment: ip.is_fragmenting_payload(),
            payload: start..start.max(ip.total_len().into()),
        })
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let ip = Ipv6HeaderSlice::from_slice(packet).ok()?;
        let mut start = ip.slice().len();
        let end = start + usize::from(ip.payload_length());
        let mut protocol = ip.next_header();
        let mut is_fragment = false;
        for _ in 0..EXTENSIONS {
            let rest = packet.get(start..end.min(packet.len()))?;
            match protocol {
                IpNumber::IPV6_HEADER_HOP_BY_HOP
                | IpNumber::IPV6_ROUTE_HEADER
                | IpNumber::IPV6_DESTINATION_OPTIONS => {
                    let extension = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                    start += extension.slice().len();
                    protocol = extension.next_header();
                }
                IpNumber::IPV6_FRAGMENTATION_HEADER => {
                    let fragment = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                    start += fragment.slice().len();
                    protocol = fragment.next_header();
                    // RFC 6946: an atomic fragment is a whole packet.
                    is_fragment |= fragment.is_fragmenting_payload();
                }
                _ => break,
            }
            if is_fragment {
                break;
            }
        }
        Some(Self {
            src: ip.source_addr().into(),
            dst: ip.destination_addr().into(),
            protocol,
            id: None,
            is_fragment,
            payload: start..start.max(end),
        })
    }
}

/// Puts a bare packet into an Ethernet frame.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&[2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0][..], &kind, packet].concat()
}
