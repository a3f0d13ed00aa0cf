//! Hand-written rtnetlink messages: many requests in one send(2), with one
//! acknowledgement.
//!
//! - include/uapi/linux/netlink.h, if_link.h, if_addr.h, rtnetlink.h, veth.h

use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The maximum number of requests in one send: the replies to so many RTM_GETLINK fit
/// into the receive buffer (net.core.rmem_default, 212992 bytes).
const MAX: u32 = 32;

/// include/uapi/linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// include/uapi/linux/if.h.
const IF_OPER_UP: u8 = 6;
/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct ifinfomsg.
const IFINFOMSG: usize = 16;

/// One end of a veth pair.
pub struct End<'a> {
    pub name: &'a str,
    pub index: u32,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// The index of the bridge that it is a port of.
    pub bridge: Option<u32>,
}

/// A netlink socket of one namespace, and the requests that have not been sent.
pub struct Batch {
    socket: Socket,
    bytes: Vec<u8>,
    last: usize,
    count: u32,
    carriers: u32,
}

impl Batch {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Self {
        let socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        Self { socket, bytes: Vec::new(), last: 0, count: 0, carriers: 0 }
    }

    pub fn up(&mut self, index: u32) {
        let up = libc::IFF_UP.cast_unsigned();
        self.request(libc::RTM_NEWLINK, 0, |b| b.extend(ifinfomsg(index, up)));
    }

    pub fn bridge(&mut self, name: &str, index: u32) {
        self.request(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |b| {
            b.extend(ifinfomsg(index, libc::IFF_UP.cast_unsigned()));
            attribute(b, libc::IFLA_IFNAME, name.as_bytes());
            nested(b, libc::IFLA_LINKINFO, |b| attribute(b, libc::IFLA_INFO_KIND, b"bridge"));
        });
    }

    /// Creates a veth pair: `near` in this namespace and up, `far` in the namespace
    /// `there`.
    pub fn veth(&mut self, near: &End<'_>, far: &End<'_>, there: i32) {
        self.request(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |b| {
            end(b, near, libc::IFF_UP.cast_unsigned());
            nested(b, libc::IFLA_LINKINFO, |b| {
                attribute(b, libc::IFLA_INFO_KIND, b"veth");
                nested(b, libc::IFLA_INFO_DATA, |b| {
                    nested(b, VETH_INFO_PEER, |b| {
                        end(b, far, 0);
                        attribute(b, libc::IFLA_NET_NS_FD, &there.to_ne_bytes());
                    });
                });
            });
        });
    }

    /// Brings a far end up and makes it a port of its bridge.
    pub fn join(&mut self, index: u32, bridge: u32) {
        self.request(libc::RTM_NEWLINK, 0, |b| {
            b.extend(ifinfomsg(index, libc::IFF_UP.cast_unsigned()));
            attribute(b, libc::IFLA_MASTER, &bridge.to_ne_bytes());
        });
    }

    pub fn address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) {
        let broadcast = address.to_bits() | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        self.request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |b| {
            b.extend([family(), prefix, 0, 0]);
            b.extend(index.to_ne_bytes());
            attribute(b, libc::IFA_LOCAL, &address.octets());
            attribute(b, libc::IFA_ADDRESS, &address.octets());
            attribute(b, libc::IFA_BROADCAST, &broadcast.to_be_bytes());
        });
    }

    /// Adds a permanent neighbour entry.
    pub fn neighbour(&mut self, index: u32, address: Ipv4Addr, mac: [u8; 6]) {
        self.request(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |b| {
            b.extend([family(), 0, 0, 0]);
            b.extend(index.to_ne_bytes());
            b.extend(libc::NUD_PERMANENT.to_ne_bytes());
            b.extend([0; 2]);
            attribute(b, libc::NDA_DST, &address.octets());
            attribute(b, libc::NDA_LLADDR, &mac);
        });
    }

    pub fn route(&mut self, to: Ipv4Addr, prefix: u8, via: Ipv4Addr) {
        self.request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |b| {
            let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
            b.extend([family(), prefix, 0, 0, table, protocol, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST]);
            b.extend([0; 4]);
            if prefix > 0 {
                attribute(b, libc::RTA_DST, &to.octets());
            }
            attribute(b, libc::RTA_GATEWAY, &via.octets());
        });
    }

    /// Requests the state of a link; [`Batch::finish`] counts the links that are up.
    pub fn carrier(&mut self, index: u32) {
        self.request(libc::RTM_GETLINK, 0, |b| b.extend(ifinfomsg(index, 0)));
    }

    fn request(&mut self, kind: u16, flags: i32, body: impl FnOnce(&mut Vec<u8>)) {
        if self.count == MAX {
            self.send();
        }
        self.count += 1;
        self.last = self.bytes.len();
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).expect("16 bits of flags");
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        body(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - self.last).expect("a short request");
        self.bytes[self.last..][..4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends the remaining requests. Returns how many of the links requested with
    /// [`Batch::carrier`] since the last call are operational.
    pub fn finish(&mut self) -> u32 {
        self.send();
        std::mem::take(&mut self.carriers)
    }

    fn send(&mut self) {
        if self.count == 0 {
            return;
        }
        // The kernel handles the requests in order, and reports errors without
        // NLM_F_ACK.
        self.bytes[self.last + 6] |= u8::try_from(libc::NLM_F_ACK).expect("a low flag");
        self.socket.send_to(&self.bytes, &SocketAddr::new(0, 0), 0).expect("send to the kernel");
        let mut datagram = Vec::with_capacity(32 * 1024);
        while !self.read(&mut datagram) {}
        self.bytes.clear();
        self.count = 0;
    }

    /// Reads one datagram. Returns true if it is the acknowledgement of the batch.
    fn read(&mut self, datagram: &mut Vec<u8>) -> bool {
        datagram.clear();
        self.socket.recv(datagram, 0).expect("the kernel's answer");
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        if i32::from(kind) == libc::NLMSG_ERROR {
            let code = i32::from_ne_bytes(datagram[HEADER..][..4].try_into().expect("4 bytes"));
            assert_eq!(code, 0, "{}", std::io::Error::from_raw_os_error(-code));
            return true;
        }
        self.carriers += u32::from(carries(datagram));
        false
    }
}

fn family() -> u8 {
    u8::try_from(libc::AF_INET).expect("a small number")
}

fn end(b: &mut Vec<u8>, end: &End<'_>, flags: u32) {
    b.extend(ifinfomsg(end.index, flags));
    attribute(b, libc::IFLA_IFNAME, end.name.as_bytes());
    attribute(b, libc::IFLA_ADDRESS, &end.mac);
    attribute(b, libc::IFLA_MTU, &end.mtu.to_ne_bytes());
    if let Some(bridge) = end.bridge {
        attribute(b, libc::IFLA_MASTER, &bridge.to_ne_bytes());
    }
}

fn ifinfomsg(index: u32, flags: u32) -> [u8; IFINFOMSG] {
    let mut message = [0; IFINFOMSG];
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    message[8..12].copy_from_slice(&flags.to_ne_bytes());
    message[12..].copy_from_slice(&flags.to_ne_bytes());
    message
}

fn attribute(b: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(b, kind, |b| b.extend(value));
}

fn nested(b: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = b.len();
    b.extend([0; 2]);
    b.extend(kind.to_ne_bytes());
    value(b);
    let length = u16::try_from(b.len() - start).expect("a short attribute");
    b[start..][..2].copy_from_slice(&length.to_ne_bytes());
    b.resize(b.len().next_multiple_of(4), 0);
}

/// Whether the IFLA_OPERSTATE of an RTM_NEWLINK message is IF_OPER_UP.
fn carries(datagram: &[u8]) -> bool {
    let mut rest = &datagram[HEADER + IFINFOMSG..];
    while let [a, b, c, d, value, ..] = *rest {
        if u16::from_ne_bytes([c, d]) == libc::IFLA_OPERSTATE {
            return value == IF_OPER_UP;
        }
        let length = usize::from(u16::from_ne_bytes([a, b])).next_multiple_of(4).max(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}
