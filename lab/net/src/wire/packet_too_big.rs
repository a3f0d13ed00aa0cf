//! ICMPv6 "packet too big": a router reports the MTU of the path to a
//! destination. The IPv6 counterpart of [`frag_needed`](super::frag_needed).
//!
//! - RFC 4443 3.2, the message; 2.3, its checksum
//! - net/ipv6/icmp.c: icmpv6_notify, icmpv6_err; net/ipv6/route.c:
//!   `ip6_update_pmtu`, which keeps it as an exception of a route

use std::net::Ipv6Addr;

use etherparse::checksum::Sum16BitWords;

use super::segment::Macs;

/// An Ethernet header, the IPv6 and ICMPv6 headers of the message, and the
/// headers of the quoted packet.
pub const LENGTH: usize = ETHERNET + IP + ICMP + IP + ICMP;

const ETHERNET: usize = 14;
const IP: usize = 40;
const ICMP: usize = 8;
/// The assigned protocol number of ICMPv6.
const NEXT_HEADER: u8 = 58;
const HOP_LIMIT: u8 = 64;
/// RFC 4443 3.2 and 4.2.
const PACKET_TOO_BIG: u8 = 2;
const ECHO_REPLY: u8 = 129;

/// The offsets of the ICMPv6 message in the frame, and of the header that it
/// quotes.
const MESSAGE: usize = ETHERNET + IP;
const QUOTED: usize = MESSAGE + ICMP;

/// The frame in which `router` reports to `host` that a packet to `destination`
/// was longer than `mtu` bytes.
///
/// The quoted packet is an echo reply: for one, `icmpv6_err` updates the route
/// without looking up a socket.
#[must_use]
pub fn packet_too_big(
    macs: Macs,
    router: Ipv6Addr,
    host: Ipv6Addr,
    destination: Ipv6Addr,
    mtu: u16,
) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(&macs.dst);
    frame[6..12].copy_from_slice(&macs.src);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    ip(&mut frame[ETHERNET..MESSAGE], router, host, LENGTH - MESSAGE);
    frame[MESSAGE] = PACKET_TOO_BIG;
    frame[MESSAGE + 6..QUOTED].copy_from_slice(&mtu.to_be_bytes());
    ip(&mut frame[QUOTED..QUOTED + IP], host, destination, ICMP);
    frame[QUOTED + IP] = ECHO_REPLY;
    add_checksum(&mut frame);
    frame
}

/// Changes the destination in the message, in place.
pub fn redirect(frame: &mut [u8; LENGTH], destination: Ipv6Addr) {
    frame[QUOTED + 24..QUOTED + IP].copy_from_slice(&destination.octets());
    add_checksum(frame);
}

/// An IPv6 header, RFC 8200 3.
fn ip(header: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, payload: usize) {
    header[0] = 0x60;
    header[4..6].copy_from_slice(&u16::try_from(payload).expect("short").to_be_bytes());
    (header[6], header[7]) = (NEXT_HEADER, HOP_LIMIT);
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}

/// RFC 8200 8.1: the checksum covers a pseudo-header and the message.
fn add_checksum(frame: &mut [u8; LENGTH]) {
    frame[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&[0, 0]);
    let length = u32::try_from(LENGTH - MESSAGE).expect("short");
    let sum = Sum16BitWords::new()
        .add_slice(&frame[ETHERNET + 8..MESSAGE])
        .add_4bytes(length.to_be_bytes())
        .add_2bytes([0, NEXT_HEADER])
        .add_slice(&frame[MESSAGE..])
        .ones_complement()
        .to_be();
    frame[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    const MACS: Macs = Macs { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };

    proptest! {
        #[test]
        fn it_is_read_as_what_it_says(router: u128, host: u128, destination: u128, other: u128, mtu: u16) {
            let [router, host, destination] = [router, host, destination].map(Ipv6Addr::from_bits);
            let frame = packet_too_big(MACS, router, host, destination, mtu);
            let mut redirected = packet_too_big(MACS, router, host, Ipv6Addr::from_bits(other), mtu);
            redirect(&mut redirected, destination);
            prop_assert_eq!(frame, redirected);
            prop_assert_eq!(Macs::of(&frame), Some(MACS));
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv6(outer)) = packet.net else { panic!("no IPv6") };
            let outer = outer.header();
            prop_assert_eq!((outer.source_addr(), outer.destination_addr()), (router, host));
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
            prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu.into() });
            prop_assert!(icmp.is_checksum_valid(router.octets(), host.octets()));
            let quoted = SlicedPacket::from_ip(icmp.payload()).unwrap();
            let Some(NetSlice::Ipv6(inner)) = quoted.net else { panic!("no IPv6 quoted") };
            let inner = inner.header();
            prop_assert_eq!((inner.source_addr(), inner.destination_addr()), (host, destination));
            let Some(TransportSlice::Icmpv6(echo)) = quoted.transport else { panic!("no ICMPv6 quoted") };
            prop_assert!(matches!(echo.icmp_type(), Icmpv6Type::EchoReply(_)));
        }
    }
}
