//! What a host has learnt about path MTUs, and how to make it learn many
//! quickly.
//!
//! Reading list: net/ipv4/route.c `update_or_create_fnhe`: the kernel stores
//! the path MTUs that routers report as exceptions of a route, in a hash table
//! of 2048 buckets (FNHE_HASH_SIZE). A bucket has at most 6 to 10 of them: a
//! limit of at least FNHE_RECLAIM_DEPTH, random since 67d6d681e15b, and the new
//! one. One more evicts the oldest. `__mkroute_output`: a lookup finds the
//! exception and binds a cached route to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use lab::network::{Host, Network};
use lab::packet::link_layer;
use lab::probe::PathMtu;
use lab::topology::Topology;
use lab::wire::{frag_needed, packet_too_big};
use lab::{Error, Result};

/// The MTU that the routers of the lab report.
pub const NARROW: u16 = 1400;
/// The discard port; nothing is sent to it.
const PORT: u16 = 9;
/// include/linux/socket.h. With both, the kernel looks up the route of an empty
/// datagram and does not send it (net/ipv4/udp.c: `udp_sendmsg`, `do_confirm`).
const MSG_PROBE: i32 = 0x10;
const MSG_CONFIRM: i32 = 0x800;
/// How many of a bucket's youngest exceptions the kernel certainly keeps:
/// FNHE_RECLAIM_DEPTH (5) and the one just added.
const KEPT: usize = 6;
/// Longer than a jiffy at HZ=100, so that earlier exceptions are older.
const JIFFY: Duration = Duration::from_millis(12);

/// A router that reports to a neighbouring host that paths behind it have a
/// small MTU.
#[derive(Debug)]
pub struct Router {
    socket: Socket,
    to: SockAddr,
    message: RefCell<Message>,
}

/// What the router sends, in the family of the host's address.
#[derive(Debug)]
enum Message {
    FragNeeded([u8; frag_needed::LENGTH]),
    PacketTooBig([u8; packet_too_big::LENGTH]),
}

impl Router {
    /// The router `router` of a network, linked to `host` by its `interface`.
    ///
    /// # Errors
    /// If no packet socket can be created, or the first addresses of the two are of
    /// different families.
    ///
    /// # Panics
    /// If the two are not linked.
    pub fn new(network: &Network, router: &str, host: &str, interface: &str) -> Result<Self> {
        let (at, told) = (network.host(router), network.host(host));
        let socket = at
            .namespace()
            .enter(|| Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(Protocol::from(0))))
            .map_err(|e| Error::kernel(at.name(), "packet socket", e))?;
        let macs = network.macs(router, host);
        let message = match (at.address(), told.address()) {
            (IpAddr::V4(at), IpAddr::V4(told)) => {
                let anywhere = Ipv4Addr::UNSPECIFIED;
                Message::FragNeeded(frag_needed::frag_needed(macs, at, told, anywhere, NARROW))
            }
            (IpAddr::V6(at), IpAddr::V6(told)) => {
                let anywhere = Ipv6Addr::UNSPECIFIED;
                Message::PacketTooBig(packet_too_big::packet_too_big(macs, at, told, anywhere, NARROW))
            }
            _ => return Err(Error::Lab(format!("{router} and {host} have addresses of different families"))),
        };
        Ok(Self { socket, to: link_layer(at.interface(interface).index), message: message.into() })
    }

    /// Reports to the host that the MTU of the path to a destination is [`NARROW`].
    ///
    /// # Errors
    /// The error of sendto(), or that the destination and the router are of
    /// different families.
    pub fn tell(&self, destination: IpAddr) -> Result<()> {
        let mut message = self.message.borrow_mut();
        let frame = match (&mut *message, destination) {
            (Message::FragNeeded(frame), IpAddr::V4(destination)) => {
                frag_needed::redirect(frame, destination);
                &frame[..]
            }
            (Message::PacketTooBig(frame), IpAddr::V6(destination)) => {
                packet_too_big::redirect(frame, destination);
                &frame[..]
            }
            (_, other) => return Err(Error::Lab(format!("{other} is not of the router's address family"))),
        };
        match self.socket.send_to(frame, &self.to) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::kernel("router", "send a frame", e)),
        }
    }
}

/// A program that looks up routes and sends nothing.
#[derive(Debug)]
pub struct Lookups(PathMtu);

impl Lookups {
    /// A program on a host.
    ///
    /// # Errors
    /// If no socket can be created.
    pub fn new(at: &Host) -> Result<Self> {
        PathMtu::new(at).map(Self)
    }

    /// Has the kernel look up the route to a destination.
    ///
    /// # Errors
    /// The error of sendto().
    pub fn look_up(&self, destination: &SockAddr) -> Result<()> {
        match SockRef::from(&self.0).send_to_with_flags(&[], destination, MSG_CONFIRM | MSG_PROBE) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::kernel("host", "look a route up", e)),
        }
    }

    /// The MTU of the path to a destination, as the kernel knows it.
    ///
    /// # Errors
    /// The error of connect().
    pub fn path_mtu(&self, destination: IpAddr) -> Result<i32> {
        self.0.to(destination)
    }
}

/// Sends `messages` messages about the destinations in turn. After each, the
/// kernel looks up the routes to two to six random ones of them. The number
/// varies, so that in time a message arrives at every point of a lookup.
///
/// # Errors
/// The error of sending a frame or of a lookup.
pub fn flood(router: &Router, lookups: &Lookups, destinations: &[IpAddr], messages: usize) -> Result<()> {
    let addresses: Vec<_> = destinations.iter().map(|d| SockAddr::from(SocketAddr::new(*d, PORT))).collect();
    let mut random = 1_u32;
    let mut next = || {
        // A linear congruential generator: Knuth, The Art of Computer
        // Programming 2, 3.3.4, line 16.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as usize
    };
    for destination in destinations.iter().cycle().take(messages) {
        router.tell(*destination)?;
        for _ in 0..2 + next() % 5 {
            lookups.look_up(&addresses[next() % addresses.len()])?;
        }
    }
    Ok(())
}

/// Finds `count` IPv4 destinations whose exceptions share a bucket of the
/// kernel's hash table, by observing which known ones new ones evict.
///
/// The hash has a secret key, drawn once per boot. The result holds for every
/// route in every namespace until the next boot.
///
/// # Errors
/// If frames cannot be sent, or `destinations` ends before enough were found.
pub async fn of_one_bucket(
    router: &Router,
    host: &Host,
    mut destinations: impl Iterator<Item = IpAddr>,
    count: usize,
) -> Result<Vec<IpAddr>> {
    let lookups = Lookups::new(host)?;
    let short = || Error::Lab(format!("fewer than {count} destinations share a bucket"));
    let known = |destination: IpAddr| Ok::<_, Error>(lookups.path_mtu(destination)? == i32::from(NARROW));
    let mut found = vec![destinations.next().ok_or_else(short)?];
    // The destinations in the bucket now, oldest first.
    let mut there: VecDeque<IpAddr> = VecDeque::new();
    while found.len() < count {
        // Add found ones until the bucket has as many as it never evicts. The
        // fewer others it has, the sooner a new one evicts a found one.
        while let Some(again) = found.iter().rev().find(|d| !there.contains(d)).copied()
            && there.len() < KEPT
        {
            router.tell(again)?;
            // The first lookup renews an exception (rt_bind_exception); later ones
            // find the cached route.
            known(again)?;
            there.push_back(again);
            tokio::time::sleep(JIFFY).await;
            forget(&mut there, &known)?;
        }
        let oldest = *there.front().ok_or_else(short)?;
        let destination = loop {
            let destination = destinations.next().ok_or_else(short)?;
            router.tell(destination)?;
            if !known(oldest)? {
                break destination;
            }
        };
        known(destination)?;
        found.push(destination);
        there.push_back(destination);
        forget(&mut there, &known)?;
    }
    Ok(found)
}

/// Like [`of_one_bucket`], but in a separate network, where `router` is linked
/// to `host` by `interface`. Only the first call in a process searches; later
/// ones return its result, because the key is drawn once per boot.
///
/// # Errors
/// Those of [`of_one_bucket`] and of building the network.
pub async fn of_one_bucket_elsewhere(
    topology: Topology,
    [router, host, interface]: [&str; 3],
    destinations: impl Iterator<Item = IpAddr>,
    count: usize,
) -> Result<&'static [IpAddr]> {
    static FOUND: OnceLock<Vec<IpAddr>> = OnceLock::new();
    if FOUND.get().is_none() {
        let elsewhere = Network::build(topology).await?;
        let router = Router::new(&elsewhere, router, host, interface)?;
        let _ = FOUND.set(of_one_bucket(&router, elsewhere.host(host), destinations, count).await?);
    }
    Ok(FOUND.get().expect("just set"))
}

/// Removes the oldest ones that the kernel has evicted.
fn forget(there: &mut VecDeque<IpAddr>, known: &dyn Fn(IpAddr) -> Result<bool>) -> Result<()> {
    while let Some(oldest) = there.front()
        && !known(*oldest)?
    {
        there.pop_front();
    }
    Ok(())
}
