//! TCP segments in Ethernet frames: parsing, editing, building.
//!
//! Segments are carried by IPv4 or IPv6 in untagged frames. ARP, a VLAN tag, a
//! fragment, and anything truncated or malformed is "not TCP": there is no
//! [`Segment`].
//!
//! - RFC 9293 3.1, the header; RFC 7323 3.2, the timestamps option
//! - print-tcp.c of tcpdump, whose format [`Segment`] is displayed in

mod identity;
mod ip;
mod place;
mod timestamps;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{Ethernet2HeaderSlice, PacketBuilder, TcpHeader, TcpHeaderSlice, TcpOptionElement};

pub use crate::tcp_flags::Flags;
use faultlab_base::error::{Error, Result};
pub use identity::{Identity, Numbers};
pub use ip::IpHeader;
use place::{Place, be32};
pub use timestamps::{Timestamps, remove_timestamps, set_timestamps};

/// The time to live, or hop limit, of frames that are built here: Linux's
/// default.
const TTL: u8 = 64;

/// The headers of a segment, as far as scenarios use them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// The sender.
    pub src: SocketAddr,
    /// The receiver.
    pub dst: SocketAddr,
    /// The sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// The next sequence number that the sender expects; significant with ACK.
    pub ack: u32,
    /// The control bits.
    pub flags: Flags,
    /// The window as it is written in the header, not scaled.
    pub window: u16,
    /// The timestamps option.
    pub timestamps: Option<Timestamps>,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} Flags [{}], seq {}", self.src, self.dst, self.flags, self.seq)?;
        if self.flags.contains(Flags::ACK) {
            write!(f, ", ack {}", self.ack)?;
        }
        if let Some(Timestamps { tsval, tsecr }) = self.timestamps {
            write!(f, ", TS val {tsval} ecr {tsecr}")?;
        }
        Ok(())
    }
}

/// A TCP segment: its headers, and a reference to its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// The headers.
    pub header: Header,
    /// The payload.
    pub payload: &'a [u8],
}

/// The Ethernet addresses of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Macs {
    /// The sender.
    pub src: [u8; 6],
    /// The receiver.
    pub dst: [u8; 6],
}

impl Macs {
    /// The addresses of `frame`; `None` if it is shorter than an Ethernet header.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let ethernet = Ethernet2HeaderSlice::from_slice(frame).ok()?;
        Some(Self { src: ethernet.source(), dst: ethernet.destination() })
    }

    /// The addresses of a reply.
    #[must_use]
    pub fn swapped(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }
}

impl Header {
    /// The headers of the segment in an Ethernet frame that may be truncated
    /// after them, and the original length of the payload.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<(Self, usize)> {
        let place = Place::of_headers(frame)?;
        Some((Self::at(frame, &place)?, place.payload.len()))
    }

    /// Like `parse`, for an IP packet without a frame.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Option<(Self, usize)> {
        Self::parse(&ip::framed(packet))
    }

    fn at(frame: &[u8], place: &Place) -> Option<Self> {
        let tcp = TcpHeaderSlice::from_slice(&frame[place.tcp.clone()]).ok()?;
        let bits = frame[place.tcp.start + 13];
        let timestamps =
            place.timestamps.map(|at| Timestamps { tsval: be32(frame, at), tsecr: be32(frame, at + 4) });
        Some(Self {
            src: SocketAddr::new(place.ip.src, tcp.source_port()),
            dst: SocketAddr::new(place.ip.dst, tcp.destination_port()),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            flags: Flags::of(bits),
            window: tcp.window_size(),
            timestamps,
        })
    }
}

impl<'a> Segment<'a> {
    /// The segment in an Ethernet frame; `None` if the frame does not hold a
    /// whole one.
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let place = Place::of(frame)?;
        Some(Self { header: Header::at(frame, &place)?, payload: &frame[place.payload] })
    }

    /// The segment as an Ethernet frame with valid checksums.
    ///
    /// # Errors
    /// If the payload does not fit into an IP packet, or the addresses are of
    /// different families.
    pub fn frame(&self, macs: Macs) -> Result<Vec<u8>> {
        let Header { src, dst, seq, ack, flags, window, timestamps } = self.header;
        let mut tcp = TcpHeader::new(src.port(), dst.port(), seq, window);
        tcp.acknowledgment_number = ack;
        tcp.fin = flags.contains(Flags::FIN);
        tcp.syn = flags.contains(Flags::SYN);
        tcp.rst = flags.contains(Flags::RST);
        tcp.psh = flags.contains(Flags::PSH);
        tcp.ack = flags.contains(Flags::ACK);
        tcp.urg = flags.contains(Flags::URG);
        tcp.ece = flags.contains(Flags::ECE);
        tcp.cwr = flags.contains(Flags::CWR);
        if let Some(Timestamps { tsval, tsecr }) = timestamps {
            // Two no-operations first, as Linux does, to align the values.
            let options =
                [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(tsval, tsecr)];
            tcp.set_options(&options).map_err(|e| Error::Lab(format!("{self}: {e}")))?;
        }
        let ethernet = PacketBuilder::ethernet2(macs.src, macs.dst);
        let ip = match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), TTL),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), TTL),
            _ => return Err(Error::Lab(format!("{self}: the addresses are of two families"))),
        };
        let builder = ip.tcp_header(tcp);
        let mut frame = Vec::with_capacity(builder.size(self.payload.len()));
        builder.write_to_vec(&mut frame, self.payload).map_err(|e| Error::Lab(format!("{self}: {e}")))?;
        Ok(frame)
    }
}

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, length {}", self.header, self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::place::be16;
    use super::timestamps::CHECKSUM;
    use super::*;

    const MACS: Macs = Macs { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };

    /// The same headers over IPv6.
    fn header_v6() -> Header {
        let [src, dst] = ["[2001:db8::2]:41000", "[2001:db8:1::2]:80"].map(|end| end.parse().unwrap());
        Header { src, dst, ..header() }
    }

    fn header() -> Header {
        Header {
            src: "10.0.0.2:41000".parse().unwrap(),
            dst: "10.0.1.2:80".parse().unwrap(),
            seq: 1,
            ack: 2,
            flags: Flags::SYN,
            window: 512,
            timestamps: Some(Timestamps { tsval: 10, tsecr: 20 }),
        }
    }

    fn checksum_is_right(frame: &[u8]) -> bool {
        let place = Place::of(frame).unwrap();
        let tcp = TcpHeaderSlice::from_slice(&frame[place.tcp]).unwrap();
        let payload = &frame[place.payload];
        let sum = match (place.ip.src, place.ip.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                tcp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                tcp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)
            }
            _ => panic!("two families"),
        };
        sum.unwrap() == tcp.checksum()
    }

    /// A frame with these options, padded to whole words, and a valid checksum.
    fn frame_with_options(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(1, 2, 3, 4);
        tcp.set_options_raw(options).unwrap();
        let builder = PacketBuilder::ethernet2(MACS.src, MACS.dst)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], TTL)
            .tcp_header(tcp);
        let mut frame = Vec::new();
        builder.write_to_vec(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn shown_as_tcpdump_does() {
        let mut header = header();
        let shown = |header| Segment { header, payload: b"" }.to_string();
        assert_eq!(
            shown(header),
            "10.0.0.2:41000 > 10.0.1.2:80 Flags [S], seq 1, TS val 10 ecr 20, length 0"
        );
        header.flags = Flags::PSH | Flags::ACK | Flags::FIN;
        header.timestamps = None;
        assert_eq!(shown(header), "10.0.0.2:41000 > 10.0.1.2:80 Flags [FP.], seq 1, ack 2, length 0");
        header.flags = Flags::default();
        assert_eq!(shown(header), "10.0.0.2:41000 > 10.0.1.2:80 Flags [none], seq 1, length 0");
    }

    #[test]
    fn padding_of_a_short_frame_is_no_payload() {
        let segment = Segment { header: Header { timestamps: None, ..header() }, payload: b"" };
        let mut frame = segment.frame(MACS).unwrap();
        assert_eq!(frame.len(), 54);
        frame.resize(60, 0);
        assert_eq!(Segment::parse(&frame), Some(segment));
    }

    /// An IPv6 frame with these extension headers before the segment, the first
    /// of type `first`. The last one names TCP.
    fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut frame = Segment { header: header_v6(), payload: b"abc" }.frame(MACS).unwrap();
        let length = u16::from_be_bytes([frame[18], frame[19]]) + u16::try_from(extensions.len()).unwrap();
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame[20] = first;
        frame.splice(54..54, extensions.iter().copied());
        frame
    }

    #[test]
    fn a_segment_lies_behind_extension_headers() {
        const TCP: u8 = 6;
        let segment = Some(Segment { header: header_v6(), payload: b"abc" });
        // Hop-by-hop options (0), then destination options (60), eight bytes each.
        let options = [60, 0, 1, 4, 0, 0, 0, 0, TCP, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(Segment::parse(&with_extensions(0, &options)), segment);
        // A fragment header (44) of the only fragment, and of the first of several.
        assert_eq!(Segment::parse(&with_extensions(44, &[TCP, 0, 0, 0, 0, 0, 0, 1])), segment);
        assert_eq!(Segment::parse(&with_extensions(44, &[TCP, 0, 0, 1, 0, 0, 0, 1])), None);
        // More headers than are parsed.
        let many = [[60, 0, 1, 4, 0, 0, 0, 0]; 9].concat();
        assert_eq!(Segment::parse(&with_extensions(60, &many)), None);
        assert!(set_timestamps(&mut with_extensions(0, &options), Timestamps { tsval: 1, tsecr: 2 }));
    }

    #[test]
    fn the_families_of_a_segment_are_one() {
        let header = Header { dst: header().dst, ..header_v6() };
        let error = Segment { header, payload: b"" }.frame(MACS).unwrap_err();
        assert!(error.to_string().contains("two families"), "{error}");
        assert!(header_v6().to_string().starts_with("[2001:db8::2]:41000 > [2001:db8:1::2]:80 "));
    }

    #[test]
    fn a_packet_in_no_frame_is_read_by_its_version() {
        for header in [header(), header_v6()] {
            let frame = Segment { header, payload: b"abc" }.frame(MACS).unwrap();
            assert_eq!(Header::of_packet(&frame[14..]), Some((header, 3)));
        }
    }

    #[test]
    fn a_fragment_is_no_segment() {
        let mut frame = Segment { header: header(), payload: b"abc" }.frame(MACS).unwrap();
        frame[14 + 6] = 0x20; // more fragments
        assert_eq!(Segment::parse(&frame), None);
    }

    #[test]
    fn a_frame_cut_short_is_no_segment() {
        let frame = Segment { header: header(), payload: b"abc" }.frame(MACS).unwrap();
        for length in 0..frame.len() {
            assert_eq!(Segment::parse(&frame[..length]), None, "{length} bytes");
            // 14 + 20 + 20 + 12 bytes of headers with timestamps.
            let headers = (length >= 66).then(|| (header(), 3));
            assert_eq!(Header::parse(&frame[..length]), headers, "{length} bytes");
        }
    }

    #[test]
    fn options_before_timestamps_are_walked_over() {
        // Maximum segment size, SACK permitted, timestamps, no-operation, window scale: a Linux SYN.
        let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7];
        let frame = frame_with_options(&options, b"");
        let timestamps = Segment::parse(&frame).unwrap().header.timestamps;
        assert_eq!(timestamps, Some(Timestamps { tsval: 7, tsecr: 9 }));
    }

    #[test]
    fn timestamps_behind_a_malformed_option_are_not_seen() {
        for length in [0, 1] {
            let options = [254, length, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
            assert_eq!(Segment::parse(&frame_with_options(&options, b"")).unwrap().header.timestamps, None);
        }
    }

    #[test]
    fn edited_on_an_odd_byte() {
        // One no-operation, then the option: its values start at an odd byte of the header.
        let options = [1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 0];
        let mut frame = frame_with_options(&options, b"odd");
        let to = Timestamps { tsval: 0xdead_beef, tsecr: 0x0102_0304 };
        assert!(set_timestamps(&mut frame, to));
        assert_eq!(Segment::parse(&frame).unwrap().header.timestamps, Some(to));
        assert!(checksum_is_right(&frame));
    }

    fn timestamps() -> impl Strategy<Value = Timestamps> {
        (any::<u32>(), any::<u32>()).prop_map(|(tsval, tsecr)| Timestamps { tsval, tsecr })
    }

    proptest! {
        #[test]
        fn made_and_read_again(
            (seq, ack, window, flags) in any::<(u32, u32, u16, u8)>(),
            timestamps in proptest::option::of(timestamps()),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            v6: bool,
        ) {
            let ends = if v6 { header_v6() } else { header() };
            let header = Header { seq, ack, window, flags: Flags::of(flags), timestamps, ..ends };
            let segment = Segment { header, payload: &payload };
            let frame = segment.frame(MACS).unwrap();
            prop_assert_eq!(Segment::parse(&frame), Some(segment));
            prop_assert!(checksum_is_right(&frame));
        }

        #[test]
        fn no_bytes_make_it_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..128)) {
            let before = Segment::parse(&frame).and_then(|segment| segment.header.timestamps);
            prop_assert_eq!(set_timestamps(&mut frame, Timestamps { tsval: 1, tsecr: 2 }), before.is_some());
        }

        #[test]
        fn no_damage_makes_it_panic(
            damage in proptest::collection::vec((0_usize..80, any::<u8>()), 1..8),
            length in 0_usize..100,
            to in timestamps(),
            v6: bool,
        ) {
            let header = if v6 { header_v6() } else { header() };
            let mut frame = Segment { header, payload: b"payload" }.frame(MACS).unwrap();
            for (at, byte) in damage {
                let at = at % frame.len();
                frame[at] = byte;
            }
            frame.truncate(length);
            if set_timestamps(&mut frame, to) {
                prop_assert_eq!(Segment::parse(&frame).unwrap().header.timestamps, Some(to));
            }
        }

        #[test]
        fn a_right_checksum_stays_right_and_a_wrong_one_wrong(
            from in timestamps(), to in timestamps(), error in 0_u16..0xffff, v6: bool,
        ) {
            let header = if v6 { header_v6() } else { header() };
            let segment = Segment { header: Header { timestamps: Some(from), ..header }, payload: b"odd" };
            let mut frame = segment.frame(MACS).unwrap();
            let at = Place::of(&frame).unwrap().tcp.start + CHECKSUM;
            let right = be16(&frame, at);
            let wrong = right ^ error;
            frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            prop_assert!(set_timestamps(&mut frame, to));
            // 0x0000 and 0xffff are one number in one's complement.
            let was_right = wrong == right || (wrong == 0xffff && right == 0);
            prop_assert_eq!(checksum_is_right(&frame), was_right);
            prop_assert!(remove_timestamps(&mut frame));
            prop_assert_eq!(checksum_is_right(&frame), was_right);
            prop_assert_eq!(Segment::parse(&frame).unwrap().header.timestamps, None);
        }

        #[test]
        fn set_and_set_back_restores_the_frame(from in timestamps(), to in timestamps()) {
            let segment = Segment { header: Header { timestamps: Some(from), ..header() }, payload: b"abc" };
            let before = segment.frame(MACS).unwrap();
            let mut frame = before.clone();
            prop_assert!(set_timestamps(&mut frame, to));
            prop_assert!(set_timestamps(&mut frame, from));
            prop_assert_eq!(frame, before);
        }
    }
}
