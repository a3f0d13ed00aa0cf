//! Routes by rtnetlink, asked for by whoever may be kept waiting.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use faultlab_net::network::{Namespace, netlink, rtnl};
use faultlab_net::topology::Net;

/// Deletes the route to a prefix, and with it all that the kernel has learnt
/// of destinations behind it; ESRCH where there is none.
///
/// # Errors
/// The kernel's answer.
pub fn delete(namespace: &Namespace, to: Net) -> io::Result<()> {
    let route = RouteNetlinkMessage::DelRoute(rtnl::route(to, None));
    netlink::change(namespace, NETLINK_ROUTE, 0, route)
}
