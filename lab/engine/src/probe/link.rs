//! Links, by blocking rtnetlink requests.
//!
//! A request waits for the RTNL mutex as long as it is locked: call these functions, and
//! those of [`address`](super::address), [`neighbour`](super::neighbour) and
//! [`route`](super::route), in an [`Attempt`](super::Attempt).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::{Instant, sleep};

use super::Child;
use faultlab_base::error::{Error, Result};
use faultlab_net::network::{Host, Namespace, netlink};

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
