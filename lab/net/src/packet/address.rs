//! The addresses of packet sockets, packet(7).

#![allow(clippy::cast_possible_truncation, reason = "C gives the kernel's small constants wide types")]

use libc::sockaddr_ll;
use socket2::{SockAddr, SockAddrStorage};

/// IEEE 802 local experimental.
const EXPERIMENTAL: u16 = 0x88b5;

/// The destination for a packet socket: the interface with this index, whatever
/// the frame's addresses.
#[must_use]
pub fn link_layer(index: u32) -> SockAddr {
    of(index.cast_signed(), EXPERIMENTAL)
}

/// All protocols on the interface with this index; on all interfaces if it is 0.
pub(crate) fn every_protocol(index: libc::c_int) -> SockAddr {
    of(index, libc::ETH_P_ALL as u16)
}

fn of(index: libc::c_int, protocol: u16) -> SockAddr {
    let address = sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into sockaddr_storage and is plain data.
    #[allow(unsafe_code, reason = "socket2 has no constructor for sockaddr_ll")]
    unsafe {
        *storage.view_as::<sockaddr_ll>() = address;
        SockAddr::new(storage, size_of::<sockaddr_ll>() as u32)
    }
}
