//! Links by rtnetlink, as a thread that may be kept waiting asks for them.
//!
//! These block for as long as the kernel likes: call them in an
//! [`Attempt`](super::Attempt).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::network::{Namespace, netlink};

/// Deletes a link; ENODEV where there is none.
///
/// # Errors
/// The kernel's answer.
pub fn delete(namespace: &Namespace, name: &str) -> io::Result<()> {
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::DelLink(named(name)))
}

/// Makes a veth pair with its other end in `there`.
///
/// # Errors
/// The kernel's answer.
pub fn add_veth(namespace: &Namespace, name: &str, there: &Namespace, peer: &str) -> io::Result<()> {
    let mut far = named(peer);
    far.attributes.push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
    let mut message = named(name);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink::change(namespace, NETLINK_ROUTE, flags, RouteNetlinkMessage::NewLink(message))
}

/// Moves a link into another namespace. It keeps its name.
///
/// # Errors
/// The kernel's answer.
pub fn give(namespace: &Namespace, name: &str, there: &Namespace) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::SetLink(message))
}

/// The names of the links.
///
/// # Errors
/// The kernel's answer.
pub fn list(namespace: &Namespace) -> io::Result<Vec<String>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links = netlink::dump(namespace, NETLINK_ROUTE, question)?;
    let name = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        }),
        _ => None,
    };
    Ok(links.into_iter().filter_map(name).collect())
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}
