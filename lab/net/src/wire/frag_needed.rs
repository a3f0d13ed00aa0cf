//! ICMP "fragmentation needed": a router reports the MTU of the path to a
//! destination.
//!
//! - RFC 792, "Destination Unreachable Message"; RFC 1191 4, the next-hop MTU
//! - net/ipv4/icmp.c: icmp_unreach, icmp_err; net/ipv4/route.c:
//!   `ipv4_update_pmtu`, which keeps it as an exception of a route

use std::net::Ipv4Addr;

use etherparse::checksum::Sum16BitWords;

use super::segment::Macs;

/// An Ethernet header, the IP and ICMP headers of the message, and the part of
/// the datagram that RFC 792 wants quoted.
pub const LENGTH: usize = ETHERNET + IP + ICMP + IP + ICMP;

const ETHERNET: usize = 14;
const IP: usize = 20;
const ICMP: usize = 8;
/// The assigned protocol number of ICMP.
const PROTOCOL: u8 = 1;
const TTL: u8 = 64;

/// The offset of the quoted header in the frame.
const QUOTED: usize = ETHERNET + IP + ICMP;

/// Changes the destination in the message, in place. This is much faster than
/// building a new one, and a host gets hundreds of thousands of them.
///
/// The ICMP checksum stays valid: it covers the quoted IP header, which sums to
/// zero together with its own checksum.
pub fn redirect(frame: &mut [u8; LENGTH], destination: Ipv4Addr) {
    frame[QUOTED + 16..QUOTED + 20].copy_from_slice(&destination.octets());
    frame[QUOTED + 10..QUOTED + 12].copy_from_slice(&[0, 0]);
    let sum = checksum(&frame[QUOTED..QUOTED + IP]);
    frame[QUOTED + 10..QUOTED + 12].copy_from_slice(&sum.to_be_bytes());
}

/// The frame in which `router` reports to `host` that a packet to `destination`
/// was longer than `mtu` bytes.
///
/// The quoted packet is an echo reply: for one, `icmp_err` updates the route
/// without looking up a socket.
#[must_use]
pub fn frag_needed(
    macs: Macs,
    router: Ipv4Addr,
    host: Ipv4Addr,
    destination: Ipv4Addr,
    mtu: u16,
) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(&macs.dst);
    frame[6..12].copy_from_slice(&macs.src);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let (message, quoted) = frame[ETHERNET..].split_at_mut(IP + ICMP);
    ip(quoted, host, destination, IP + ICMP);
    // RFC 792: an echo reply is type 0, code 0; its checksum is all ones.
    quoted[IP + 2..IP + 4].copy_from_slice(&[0xff, 0xff]);
    ip(message, router, host, LENGTH - ETHERNET);
    // RFC 1191 4: type 3, code 4, the next-hop MTU in the last two bytes.
    message[IP..IP + 2].copy_from_slice(&[3, 4]);
    message[IP + 6..].copy_from_slice(&mtu.to_be_bytes());
    let sum = checksum(&frame[ETHERNET + IP..]);
    frame[ETHERNET + IP + 2..ETHERNET + IP + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// An IPv4 header without options, RFC 791 3.1.
fn ip(header: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, length: usize) {
    header[0] = 0x45;
    header[2..4].copy_from_slice(&u16::try_from(length).expect("short").to_be_bytes());
    // Do not fragment.
    header[6] = 0x40;
    (header[8], header[9]) = (TTL, PROTOCOL);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&header[..IP]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
    use proptest::prelude::*;

    use super::*;

    const MACS: Macs = Macs { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };

    proptest! {
        #[test]
        fn it_is_read_as_what_it_says(router: u32, host: u32, destination: u32, other: u32, mtu: u16) {
            let [router, host, destination] = [router, host, destination].map(Ipv4Addr::from);
            let frame = frag_needed(MACS, router, host, destination, mtu);
            let mut redirected = frag_needed(MACS, router, host, Ipv4Addr::from(other), mtu);
            redirect(&mut redirected, destination);
            // The two zeros of one's complement are one: RFC 1071.
            let zero = |sum: &[u8]| sum == [0, 0] || sum == [0xff, 0xff];
            for (at, (made, edited)) in frame.chunks(2).zip(redirected.chunks(2)).enumerate() {
                prop_assert!(made == edited || zero(made) && zero(edited), "word {}", at);
            }
            prop_assert_eq!(Macs::of(&frame), Some(MACS));
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv4(outer)) = packet.net else { panic!("no IPv4") };
            let header = outer.header().to_header();
            prop_assert_eq!((outer.header().source_addr(), outer.header().destination_addr()), (router, host));
            prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("no ICMP") };
            let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
            let sum = icmp.icmp_type().calc_checksum(icmp.payload());
            prop_assert_eq!(icmp.checksum(), sum);
            let quoted = SlicedPacket::from_ip(icmp.payload()).unwrap();
            let Some(NetSlice::Ipv4(inner)) = quoted.net else { panic!("no IPv4 quoted") };
            prop_assert_eq!(
                (inner.header().source_addr(), inner.header().destination_addr()),
                (host, destination)
            );
            let Some(TransportSlice::Icmpv4(echo)) = quoted.transport else { panic!("no ICMP quoted") };
            prop_assert!(matches!(echo.icmp_type(), Icmpv4Type::EchoReply(_)));
        }
    }
}
