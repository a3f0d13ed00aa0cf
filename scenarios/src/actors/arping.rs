//! A gratuitous ARP request, as `arping -U` and keepalived send it.
//!
//! Reading list: RFC 826; RFC 5227 3 (ARP announcement); net/ipv4/arp.c:
//! `arp_process`, `is_garp`.

use std::net::Ipv4Addr;

use socket2::{Domain, Protocol, Socket, Type};

use lab::network::{Host, Interface};
use lab::packet::link_layer;
use lab::{Error, Result};

/// An Ethernet header of 14 bytes, and an ARP packet for IPv4 of 28.
const LENGTH: usize = 42;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet type ARP; hardware Ethernet, protocol IPv4, their lengths, a request.
const ARP: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1];

/// Announces to all neighbours that `address` belongs to an interface of this host.
///
/// # Errors
/// If no packet socket can be created, or the error of sendto().
pub fn announce(at: &Host, interface: &Interface, address: Ipv4Addr) -> Result<()> {
    let failed = |e| Error::kernel(at.name(), "send a gratuitous ARP request", e);
    let open = || Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(Protocol::from(0)));
    let socket = at.namespace().enter(open).map_err(failed)?;
    let frame = request(interface.mac, address);
    socket.send_to(&frame, &link_layer(interface.index)).map_err(failed)?;
    Ok(())
}

/// The frame: sender and target address are the same.
fn request(mac: [u8; 6], address: Ipv4Addr) -> [u8; LENGTH] {
    let address = address.octets();
    let parts: [&[u8]; 7] = [&BROADCAST, &mac, &ARP, &mac, &address, &[0; 6], &address];
    parts.concat().try_into().expect("its parts have 42 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_asks_everybody_for_the_senders_own_address() {
        let frame = request([2, 0, 0, 0, 0, 9], Ipv4Addr::new(10, 0, 0, 100));
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6]);
        // RFC 826: hardware, protocol, lengths, opcode; sender; target.
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 0, 9, 10, 0, 0, 100]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    }
}
