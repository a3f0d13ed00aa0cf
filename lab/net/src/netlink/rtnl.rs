//! rtnetlink requests: links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::namespace::Namespace;
use crate::netlink;
use crate::topology::{Family, Net};
use faultlab_base::error::{Error, Result};

/// Opens a connection in a namespace; it runs until its handle is dropped.
pub(crate) fn connect(namespace: &Namespace) -> Result<Handle> {
    let (connection, handle, _) = namespace
        .enter(rtnetlink::new_connection)
        .map_err(|e| Error::kernel(namespace.name(), "netlink socket (NETLINK_ROUTE)", e))?;
    tokio::task::spawn_local(connection);
    Ok(handle)
}

/// Turns rtnetlink's answer into an error that names the place and the attempt.
pub(crate) fn answered<T>(
    place: &str,
    tried: impl FnOnce() -> String,
    result: std::result::Result<T, rtnetlink::Error>,
) -> Result<T> {
    result.map_err(|error| match error {
        rtnetlink::Error::NetlinkError(message) => Error::kernel(place, tried(), message.to_io()),
        other => Error::Lab(format!("{place}: {}: {other}", tried())),
    })
}

/// One end of a veth pair to be made.
pub(crate) struct VethEnd<'a> {
    pub name: &'a str,
    pub index: u32,
    pub mac: [u8; 6],
    pub bridge: Option<u32>,
}

impl VethEnd<'_> {
    fn message(&self, mtu: u32, namespace: Option<BorrowedFd<'_>>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header = LinkHeader { index: self.index, ..LinkHeader::default() };
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Address(self.mac.to_vec()),
            LinkAttribute::Mtu(mtu),
        ];
        message.attributes.extend(self.bridge.map(LinkAttribute::Controller));
        message.attributes.extend(namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        message
    }
}

/// The request for a veth pair: one end here, up, and the other in `there`, which
/// [`up`] brings up later. The far end can be neither up, since it does not know
/// its peer yet, nor in a bridge (drivers/net/veth.c: veth_open, ENOTCONN;
/// veth_newlink ignores the peer's IFLA_MASTER).
pub(crate) fn veth(near: &VethEnd<'_>, far: &VethEnd<'_>, mtu: u32, there: BorrowedFd<'_>) -> LinkMessage {
    let mut message = near.message(mtu, None);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far.message(mtu, Some(there))))),
    ]));
    message
}

/// The request for a bridge, up.
pub(crate) fn bridge(name: &str, index: u32) -> LinkMessage {
    let mut message = LinkUnspec::new_with_index(index).name(name.to_owned()).up().build();
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    message
}

/// The request that brings a link up, and adds it to its bridge if it has one.
/// The loopback interface has index 1.
pub(crate) fn up(index: u32, bridge: Option<u32>) -> LinkMessage {
    let mut message = LinkUnspec::new_with_index(index).up().build();
    message.attributes.extend(bridge.map(LinkAttribute::Controller));
    message
}

/// Makes an IPv6 address usable at once, without duplicate address detection
/// (IFA_F_NODAD).
pub fn without_dad(address: &mut AddressMessage) {
    address.header.flags |= AddressHeaderFlags::Nodad;
    address.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
}

/// The message for a route to a prefix, with an optional next hop `via` of the
/// same family.
#[must_use]
pub fn route(to: Net, via: Option<IpAddr>) -> RouteMessage {
    match (to.addr(), via) {
        (IpAddr::V4(v4), via) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, to.prefix_len());
            if let Some(IpAddr::V4(via)) = via {
                route = route.gateway(via);
            }
            route.build()
        }
        (IpAddr::V6(v6), via) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, to.prefix_len());
            if let Some(IpAddr::V6(via)) = via {
                route = route.gateway(via);
            }
            route.build()
        }
    }
}

/// The number of a family (AF_INET, AF_INET6).
#[must_use]
pub fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The query for the route to an address.
#[must_use]
pub fn route_to(address: IpAddr) -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.destination_prefix_length = Family::of(address).bits();
    let destination = match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    };
    request.header.address_family = number(Family::of(address));
    request.attributes.push(RouteAttribute::Destination(destination));
    request
}

/// Whether the kernel treats an address as local. It adds the route for an IPv6
/// address from a work queue, some time after it has acknowledged the address
/// (net/ipv6/addrconf.c: addrconf_dad_work, also without DAD).
pub(crate) fn is_local(namespace: &Namespace, address: IpAddr) -> Result<bool> {
    let request = RouteNetlinkMessage::GetRoute(route_to(address));
    match netlink::query(namespace, NETLINK_ROUTE, request) {
        Ok(answers) => Ok(answers.iter().any(|answer| {
            matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
        })),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => Ok(false),
        Err(e) => Err(Error::kernel(namespace.name(), format!("look up the route to {address}"), e)),
    }
}

/// Whether the kernel has registered a link's carrier. The query itself makes it
/// do so (net/core/rtnetlink.c: linkwatch_sync_dev, since 6.8).
pub(crate) async fn operational(handle: &Handle, place: &str, index: u32) -> Result<bool> {
    let request = handle.link().get().match_index(index).execute().try_next().await;
    let link = answered(place, || format!("get link {index}"), request)?;
    Ok(link.is_some_and(|l| l.attributes.contains(&LinkAttribute::OperState(State::Up))))
}
