//! Routes, by blocking rtnetlink requests.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use faultlab_net::network::{Namespace, netlink, rtnl};
use faultlab_net::topology::{Family, Net};

/// Deletes the route to a prefix, and its exceptions (path MTUs and redirects) with it;
/// ESRCH if there is no such route.
///
/// # Errors
/// The kernel's error.
pub fn delete(namespace: &Namespace, to: Net) -> io::Result<()> {
    let route = RouteNetlinkMessage::DelRoute(rtnl::route(to, None));
    netlink::change(namespace, NETLINK_ROUTE, 0, route)
}

/// Policy routing by source: packets from `source` take a default route through
/// `gateway`, in a routing table of their own. As `ip route add default via GATEWAY table
/// TABLE` and `ip rule add from SOURCE table TABLE` do.
///
/// # Errors
/// EEXIST if the table has a default route; ENETUNREACH if the gateway is not on a link;
/// otherwise the kernel's error.
pub fn add_for_source(
    namespace: &Namespace,
    source: impl Into<IpAddr>,
    gateway: impl Into<IpAddr>,
    table: u8,
) -> io::Result<()> {
    let (source, gateway) = (source.into(), gateway.into());
    let family = Family::of(gateway);
    let mut route = rtnl::route(Net::new(family.unspecified(), 0), Some(gateway));
    route.header.table = table;
    let mut rule = RuleMessage::default();
    rule.header.family = rtnl::number(family);
    rule.header.table = table;
    rule.header.action = RuleAction::ToTable;
    rule.header.src_len = Family::of(source).bits();
    rule.attributes.push(RuleAttribute::Source(source));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink::change(namespace, NETLINK_ROUTE, flags, RouteNetlinkMessage::NewRoute(route))?;
    netlink::change(namespace, NETLINK_ROUTE, flags, RouteNetlinkMessage::NewRule(rule))
}

/// The number of IPv4 routes, in all tables.
///
/// # Errors
/// The kernel's error.
pub fn count(namespace: &Namespace) -> io::Result<usize> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    Ok(netlink::dump(namespace, NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question))?.len())
}

/// Looks up the route to an address.
///
/// # Errors
/// ENETUNREACH if there is no route; otherwise the kernel's error.
pub fn look_up(namespace: &Namespace, address: IpAddr) -> io::Result<()> {
    let question = RouteNetlinkMessage::GetRoute(rtnl::route_to(address));
    netlink::change(namespace, NETLINK_ROUTE, 0, question)
}
