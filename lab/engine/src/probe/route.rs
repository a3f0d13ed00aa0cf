//! Routes, by blocking rtnetlink requests.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use faultlab_net::network::{Namespace, netlink, rtnl};
use faultlab_net::topology::Net;

/// Deletes the route to a prefix, and its exceptions (path MTUs and redirects) with it;
/// ESRCH if there is no such route.
///
/// # Errors
/// The kernel's error.
pub fn delete(namespace: &Namespace, to: Net) -> io::Result<()> {
    let route = RouteNetlinkMessage::DelRoute(rtnl::route(to, None));
    netlink::change(namespace, NETLINK_ROUTE, 0, route)
}
