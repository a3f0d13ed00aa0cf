//! A small network, built with rtnetlink instead of the lab's own topologies:
//!
//! ```text
//! client eth0 ---------- lan router wan ---------- eth0 server
//!      10.0.1.2/24   10.0.1.1     192.0.2.1   192.0.2.2/24
//! ```
//!
//! The server has no route to the client: without source NAT it cannot answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lab::network::Namespace;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use crate::isolated::{alone_async, applicable};

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// The router's address towards the client.
pub const ROUTER_LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The router's address towards the server.
pub const ROUTER_WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// How long a test waits for a condition.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The network, configured and up. Each host is a network namespace.
#[derive(Debug)]
pub struct Routed {
    /// Its default route is the router.
    pub client: Namespace,
    /// It forwards IPv4 (net.ipv4.ip_forward=1).
    pub router: Namespace,
    /// It has no route to the client.
    pub server: Namespace,
}

/// Runs `test` on its own thread, with the network up.
pub fn routed(test: impl AsyncFnOnce(&Routed) + Send + 'static) {
    alone_async(|| async {
        let net = Routed::new().await;
        test(&net).await;
    });
}

impl Routed {
    async fn new() -> Self {
        let new = |name| applicable(Namespace::new(name));
        let net = Self { client: new("client"), router: new("router"), server: new("server") };
        let router = routes(&net.router);
        for (device, address, end, end_address) in
            [("lan", ROUTER_LAN, &net.client, CLIENT), ("wan", ROUTER_WAN, &net.server, SERVER)]
        {
            let peer = LinkUnspec::new_with_name("eth0").setns_by_fd(end.as_fd().as_raw_fd()).build();
            let veth = LinkVeth::new(device, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
            router.link().add(veth.build()).execute().await.unwrap();
            bring_up(&router, &net.router, device, address).await;
            bring_up(&routes(end), end, "eth0", end_address).await;
        }
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(ROUTER_LAN).build();
        routes(&net.client).route().add(default).execute().await.unwrap();
        for (host, device) in
            [(&net.client, "eth0"), (&net.router, "lan"), (&net.router, "wan"), (&net.server, "eth0")]
        {
            running(host, device).await;
        }
        net.router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        net
    }

    /// A TCP listener on the server.
    #[must_use]
    pub fn listen(&self, port: u16) -> TcpListener {
        self.server.enter(|| TcpListener::bind((SERVER, port)).unwrap())
    }

    /// Connects from the client, within a second. Reads time out after [`PATIENCE`].
    ///
    /// # Errors
    /// The error of connect(2).
    pub fn connect(&self, to: (Ipv4Addr, u16)) -> io::Result<TcpStream> {
        let to = SocketAddrV4::new(to.0, to.1).into();
        let stream = self.client.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A UDP socket of a host. Reads time out after [`PATIENCE`].
#[must_use]
pub fn udp(host: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((address, port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The address and port of an IPv4 socket.
///
/// # Panics
/// If it is IPv6.
#[must_use]
pub fn v4(address: std::net::SocketAddr) -> (Ipv4Addr, u16) {
    match address {
        std::net::SocketAddr::V4(address) => (*address.ip(), address.port()),
        std::net::SocketAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}

fn routes(namespace: &Namespace) -> Handle {
    let (connection, handle, _) = namespace.enter(new_connection).unwrap();
    tokio::spawn(connection);
    handle
}

fn index(namespace: &Namespace, device: &str) -> u32 {
    namespace.enter(|| nix::net::if_::if_nametoindex(device)).unwrap()
}

/// Waits until the operational state of a device is UP: before, its qdisc may drop packets.
/// net/core/link_watch.c activates it some time after the carrier is up.
async fn running(namespace: &Namespace, device: &str) {
    let (routes, index) = (routes(namespace), index(namespace, device));
    let up = async || {
        let link = routes.link().get().match_index(index).execute().try_next().await.unwrap().unwrap();
        link.attributes.contains(&LinkAttribute::OperState(State::Up))
    };
    let deadline = Instant::now() + PATIENCE;
    while !up().await {
        assert!(Instant::now() < deadline, "{}: {device} is not up", namespace.name());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn bring_up(handle: &Handle, namespace: &Namespace, device: &str, address: Ipv4Addr) {
    let index = index(namespace, device);
    handle.address().add(index, address.into(), 24).execute().await.unwrap();
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    handle.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
}
