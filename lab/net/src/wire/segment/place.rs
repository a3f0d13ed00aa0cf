//! The offsets of a segment's parts in an Ethernet frame.

use std::ops::Range;

use etherparse::{IpNumber, TcpHeaderSlice};

use super::ip::IpHeader;

/// The timestamps option, RFC 7323 3.2: kind 8, length 10.
pub(super) const TIMESTAMPS: [u8; 2] = [8, 10];

/// The offsets of a segment's parts in its frame.
pub(super) struct Place {
    /// The IP header.
    pub ip: IpHeader,
    /// The TCP header with its options.
    pub tcp: Range<usize>,
    /// The offset of the two values of the timestamps option, eight bytes.
    pub timestamps: Option<usize>,
    /// The payload, without Ethernet padding.
    pub payload: Range<usize>,
}

impl Place {
    /// `None` if the frame ends before the payload does.
    pub fn of(frame: &[u8]) -> Option<Self> {
        Self::of_headers(frame).filter(|place| place.payload.end <= frame.len())
    }

    pub fn of_headers(frame: &[u8]) -> Option<Self> {
        let ip = IpHeader::of_frame(frame)?;
        if ip.protocol != IpNumber::TCP || ip.is_fragment {
            return None;
        }
        let Range { start, end: last } = ip.payload;
        let tcp = TcpHeaderSlice::from_slice(frame.get(start..last.min(frame.len()))?).ok()?;
        let end = start + tcp.slice().len();
        let timestamps =
            timestamps_option(tcp.options()).map(|option| end - tcp.options().len() + option + 2);
        Some(Self { ip, tcp: start..end, timestamps, payload: end..last })
    }
}

/// The offset of the timestamps option. Like tcp_parse_options() in
/// net/ipv4/tcp_input.c, it gives up at the first malformed option.
fn timestamps_option(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match options.get(at..)? {
            [] | [0, ..] => return None,
            [1, ..] => at += 1,
            rest if rest.starts_with(&TIMESTAMPS) && rest.len() >= 10 => return Some(at),
            [_, length, ..] if *length >= 2 => at += usize::from(*length),
            _ => return None,
        }
    }
}

pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
