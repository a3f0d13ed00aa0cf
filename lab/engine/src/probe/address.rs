//! The addresses of links, by blocking rtnetlink requests.

use std::net::IpAddr;
use std::{fmt, io};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use faultlab_net::network::rtnl::number;
use faultlab_net::network::{Namespace, netlink, rtnl};
use faultlab_net::topology::{Family, Net};

/// The IPv4 addresses of the links.
///
/// # Errors
/// The kernel's error.
pub fn list(namespace: &Namespace) -> io::Result<Vec<IpAddr>> {
    of_family(namespace, Family::V4)
}

/// The addresses of the links in one family.
///
/// # Errors
/// The kernel's error.
pub fn of_family(namespace: &Namespace, family: Family) -> io::Result<Vec<IpAddr>> {
    let mut question = AddressMessage::default();
    question.header.family = number(family);
    let answers = netlink::dump(namespace, NETLINK_ROUTE, RouteNetlinkMessage::GetAddress(question))?;
    let local = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(address) => address.attributes.into_iter().find_map(|a| match a {
            // For an IPv6 interface without a peer, the kernel reports no separate
            // local address.
            AddressAttribute::Local(address) | AddressAttribute::Address(address @ IpAddr::V6(_)) => {
                Some(address)
            }
            _ => None,
        }),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(local).collect())
}

/// Adds an address to a link, at once usable: without duplicate address detection.
///
/// # Errors
/// EEXIST if the link has it; otherwise the kernel's error.
pub fn add(namespace: &Namespace, index: u32, net: Net) -> io::Result<()> {
    add_with(namespace, index, net, Dad::Skipped)
}

/// How duplicate address detection (RFC 4862 5.4) treats a new IPv6 address. An IPv4
/// address has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dad {
    /// As the interface's sysctls say (accept_dad, dad_transmits): the default of
    /// `ip address add`.
    Default,
    /// None (IFA_F_NODAD): `ip address add ... nodad`.
    Skipped,
    /// The address is usable during it (IFA_F_OPTIMISTIC, RFC 4429): `ip address add ...
    /// optimistic`. The kernel ignores the flag unless optimistic_dad is 1.
    Optimistic,
}

/// The same, with a choice of duplicate address detection.
///
/// # Errors
/// As [`add`].
pub fn add_with(namespace: &Namespace, index: u32, net: Net, dad: Dad) -> io::Result<()> {
    let mut message = address(index, net);
    match dad {
        Dad::Default => {}
        Dad::Skipped => rtnl::without_dad(&mut message),
        Dad::Optimistic => message.attributes.push(AddressAttribute::Flags(AddressFlags::Optimistic)),
    }
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink::change(namespace, NETLINK_ROUTE, flags, RouteNetlinkMessage::NewAddress(message))
}

/// The state of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// No link has it.
    Absent,
    /// Duplicate address detection has not ended (IFA_F_TENTATIVE).
    Tentative,
    /// It has not ended, and the address may be used (IFA_F_OPTIMISTIC).
    Optimistic,
    /// Another node has the address (IFA_F_DADFAILED).
    Duplicate,
    /// None of these.
    Usable,
}

/// Spelled as ip-address(8) does; `absent` and `usable` are added.
impl fmt::Display for AddressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Tentative => "tentative",
            Self::Optimistic => "optimistic",
            Self::Duplicate => "dadfailed",
            Self::Usable => "usable",
        })
    }
}

/// The state of an IPv6 address.
///
/// # Errors
/// The kernel's error.
pub fn state(namespace: &Namespace, address: IpAddr) -> io::Result<AddressState> {
    let mut question = AddressMessage::default();
    question.header.family = number(Family::of(address));
    let answers = netlink::dump(namespace, NETLINK_ROUTE, RouteNetlinkMessage::GetAddress(question))?;
    let state = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(known)
            if known.attributes.contains(&AddressAttribute::Address(address)) =>
        {
            let flags = known.attributes.iter().find_map(|a| match a {
                AddressAttribute::Flags(flags) => Some(*flags),
                _ => None,
            });
            let has = |flag| flags.is_some_and(|flags| flags.contains(flag));
            Some(if has(AddressFlags::Dadfailed) {
                AddressState::Duplicate
            } else if has(AddressFlags::Optimistic) {
                AddressState::Optimistic
            } else if has(AddressFlags::Tentative) {
                AddressState::Tentative
            } else {
                AddressState::Usable
            })
        }
        _ => None,
    };
    Ok(answers.into_iter().find_map(state).unwrap_or(AddressState::Absent))
}

/// Removes an address from a link.
///
/// # Errors
/// EADDRNOTAVAIL if the link does not have it; otherwise the kernel's error.
pub fn delete(namespace: &Namespace, index: u32, net: Net) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelAddress(address(index, net));
    netlink::change(namespace, NETLINK_ROUTE, 0, message)
}

fn address(index: u32, net: Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = number(net.family());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}
