//! The neighbours of a host, by blocking rtnetlink requests.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use faultlab_net::network::rtnl::number;
use faultlab_net::network::{Namespace, netlink};
use faultlab_net::topology::Family;

/// Removes the neighbour entry of an address, as `ip neigh del` does: what is sent there
/// next waits for ARP or neighbour discovery.
///
/// # Errors
/// ENOENT if there is none; otherwise the kernel's error.
pub fn delete(namespace: &Namespace, index: u32, address: IpAddr) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = number(Family::of(address));
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::DelNeighbour(message))
}
