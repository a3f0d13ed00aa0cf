//! Links, addresses, neighbours and routes, by blocking rtnetlink requests.
//!
//! A request waits for the RTNL mutex as long as it is locked: call these functions in
//! an [`Attempt`](super::Attempt).

use std::ffi::CStr;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use std::{fmt, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::{Instant, sleep};

use super::Child;
use faultlab_base::error::{Error, Result};
use faultlab_net::network::{Host, Namespace, netlink, rtnl};
use faultlab_net::topology::{Family, Net};

/// Deletes a link; ENODEV where there is none.
///
/// # Errors
/// The kernel's error.
pub fn delete(namespace: &Namespace, name: &str) -> io::Result<()> {
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::DelLink(named(name)))
}

/// The cell for the result of a request: `waits` if there is none yet, `done`, or the
/// error.
#[must_use]
pub fn met(answer: Option<&io::Result<()>>) -> &'static str {
    match answer {
        None => "waits",
        Some(Ok(())) => "done",
        Some(Err(e)) if e.raw_os_error() == Some(libc::ENODEV) => "no such device",
        Some(Err(_)) => "another error",
    }
}

/// Has a process called `name` (at most 15 bytes) delete a link. It exits with the
/// result that [`delete`] would have returned.
///
/// # Errors
/// If no process can be created.
pub fn delete_in_child(at: &Host, link: &str, name: &CStr) -> Result<Child> {
    let failed = |tried: &str, e: io::Error| Error::kernel(at.name(), tried, e);
    let wish = RouteNetlinkMessage::DelLink(named(link));
    let (socket, request) = netlink::prepare(at.namespace(), NETLINK_ROUTE, NLM_F_ACK, wish)
        .map_err(|e| failed("netlink socket (NETLINK_ROUTE)", e))?;
    let fd = socket.as_raw_fd();
    let ask = || {
        // struct nlmsghdr, then struct nlmsgerr, which begins with the errno.
        let mut answer = [0_u8; 1024];
        // SAFETY: send and recv are system calls, on buffers that outlive them.
        #[allow(unsafe_code, reason = "a forked child makes system calls only")]
        let length = unsafe {
            libc::send(fd, request.as_ptr().cast(), request.len(), 0);
            libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        let [.., a, b, c, d] = *answer.first_chunk::<20>().unwrap_or(&[0; 20]);
        if length < 20 { libc::EIO } else { i32::from_ne_bytes([a, b, c, d]).wrapping_neg() }
    };
    // SAFETY: `ask` only makes system calls, on memory prepared before the fork.
    #[allow(unsafe_code, reason = "see SAFETY")]
    let child = unsafe { Child::begin(name, ask) };
    let child = child.map_err(|e| failed("fork", e))?;
    child.wanted_at(at, format!("the delete of {link}"));
    Ok(child)
}

/// Moves a link to another namespace, with RTM_NEWLINK, as `ip link set netns` does.
/// The link keeps its name.
///
/// # Errors
/// The kernel's error.
pub fn move_to(namespace: &Namespace, name: &str, there: &Namespace) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::NewLink(message))
}

/// Sets a link up, as one must after it has moved to another namespace.
///
/// # Errors
/// ENODEV where there is none; otherwise the kernel's error.
pub fn set_up(namespace: &Namespace, name: &str) -> io::Result<()> {
    let mut message = named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::NewLink(message))
}

/// Creates a veth pair with its other end in `there`.
///
/// # Errors
/// The kernel's error.
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

/// The same as [`move_to`], but with RTM_SETLINK, as programs do that use the Go
/// package vishvananda/netlink.
///
/// # Errors
/// The kernel's error.
pub fn give(namespace: &Namespace, name: &str, there: &Namespace) -> io::Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::SetLink(message))
}

/// The names of the links.
///
/// # Errors
/// The kernel's error.
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

/// The IPv4 addresses of the links.
///
/// # Errors
/// The kernel's error.
pub fn addresses(namespace: &Namespace) -> io::Result<Vec<IpAddr>> {
    addresses_of(namespace, Family::V4)
}

/// The addresses of the links in one family.
///
/// # Errors
/// The kernel's error.
pub fn addresses_of(namespace: &Namespace, family: Family) -> io::Result<Vec<IpAddr>> {
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
pub fn add_address(namespace: &Namespace, index: u32, net: Net) -> io::Result<()> {
    add_address_with(namespace, index, net, Dad::Skipped)
}

/// What becomes of duplicate address detection (RFC 4862 5.4) for one IPv6 address. An
/// IPv4 address has none.
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
/// As [`add_address`].
pub fn add_address_with(namespace: &Namespace, index: u32, net: Net, dad: Dad) -> io::Result<()> {
    let mut message = address(index, net);
    match dad {
        Dad::Default => {}
        Dad::Skipped => rtnl::without_dad(&mut message),
        Dad::Optimistic => message.attributes.push(AddressAttribute::Flags(AddressFlags::Optimistic)),
    }
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink::change(namespace, NETLINK_ROUTE, flags, RouteNetlinkMessage::NewAddress(message))
}

/// How far the kernel trusts an IPv6 address to be its own.
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

/// In the words of ip-address(8).
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
pub fn address_state(namespace: &Namespace, address: IpAddr) -> io::Result<AddressState> {
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
pub fn delete_address(namespace: &Namespace, index: u32, net: Net) -> io::Result<()> {
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

/// Removes the neighbour entry of an address, as `ip neigh del` does: what is sent there
/// next waits for ARP or neighbour discovery.
///
/// # Errors
/// ENOENT if there is none; otherwise the kernel's error.
pub fn forget_neighbour(namespace: &Namespace, index: u32, address: IpAddr) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = number(Family::of(address));
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }));
    netlink::change(namespace, NETLINK_ROUTE, 0, RouteNetlinkMessage::DelNeighbour(message))
}

/// The number of IPv4 routes, in all tables.
///
/// # Errors
/// The kernel's error.
pub fn routes(namespace: &Namespace) -> io::Result<usize> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    Ok(netlink::dump(namespace, NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(question))?.len())
}

/// Looks up the route to an address.
///
/// # Errors
/// ENETUNREACH if there is no route; otherwise the kernel's error.
pub fn route_to(namespace: &Namespace, address: IpAddr) -> io::Result<()> {
    let question = RouteNetlinkMessage::GetRoute(rtnl::route_to(address));
    netlink::change(namespace, NETLINK_ROUTE, 0, question)
}

fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Waits up to `within`, on the machine's clock, for a link of a host to disappear, and
/// returns whether it did. If the links cannot be listed, it counts as still there.
pub async fn vanishes(at: &Host, name: &str, within: Duration) -> bool {
    let (begun, _wanted) = (Instant::now(), at.record_wait(format!("the end of its link {name}")));
    while !list(at.namespace()).is_ok_and(|links| links.iter().all(|link| link != name)) {
        if begun.elapsed() >= within {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}
