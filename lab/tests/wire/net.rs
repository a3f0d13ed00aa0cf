//! Two hosts with a wire between them, built by hand.

use std::io::{ErrorKind, Read};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use faultlab_testkit::applicable;
use lab::network::{Namespace, offload};
use lab::wire::Wire;
use lab::wire::policy::Policy;
use lab::wire::segment::{Header, Segment};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

use super::{A, B, PORT};

/// Two hosts, and the namespace with the wire's ends.
pub struct Net {
    pub a: Namespace,
    pub b: Namespace,
    pub lab: Namespace,
    pub netlink: Handle,
}

impl Net {
    /// The network, with all links up, and with the offloads off that a wire cannot
    /// carry.
    pub async fn new() -> Self {
        let net = Self::with_offloads().await;
        offload::switch_off(&net.a, "eth0").unwrap();
        offload::switch_off(&net.b, "eth0").unwrap();
        net
    }

    pub async fn with_offloads() -> Self {
        let [a, b, lab] = ["a", "b", "lab"].map(|name| applicable(Namespace::new(name)));
        for ns in [&a, &b, &lab] {
            // Neighbour discovery would add frames to those that are counted.
            write_sysctl(ns, "net/ipv6/conf/default/disable_ipv6", "1");
            // As in a topology: no more frames may be in flight than a ring holds.
            write_sysctl(ns, "net/ipv4/tcp_rmem", "4096 131072 2097152");
        }
        let netlink = connect_netlink(&lab);
        for (ns, address, end) in [(&a, A, "w0"), (&b, B, "w1")] {
            let peer = LinkUnspec::new_with_name("eth0").setns_by_fd(ns.fd()).build();
            let veth = LinkVeth::new(end, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
            netlink.link().add(veth).execute().await.unwrap();
            up(&netlink, end).await;
            let host = connect_netlink(ns);
            let index = ns.enter(|| nix::net::if_::if_nametoindex("eth0")).unwrap();
            host.address().add(index, address.into(), 24).execute().await.unwrap();
            up(&host, "eth0").await;
        }
        Self { a, b, lab, netlink }
    }

    pub fn wire(&self, policy: impl Policy + 'static) -> Wire {
        applicable(Wire::new("a-b", [(&self.lab, "w0"), (&self.lab, "w1")], Box::new(policy)))
    }

    pub fn listen(&self) -> TcpListener {
        let listener = self.b.enter(|| std::net::TcpListener::bind((B, PORT))).unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// A connection from a to b: a's end and b's.
    pub async fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        self.connect_from(listener, 0).await
    }

    pub async fn connect_from(&self, listener: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
        let socket = self.a.enter(TcpSocket::new_v4).unwrap();
        socket.bind(SocketAddrV4::new(A, port).into()).unwrap();
        let (client, server) =
            tokio::join!(socket.connect(SocketAddrV4::new(B, PORT).into()), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }
}

trait Fd {
    fn fd(&self) -> i32;
}

impl Fd for Namespace {
    fn fd(&self) -> i32 {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }
}

pub fn connect_netlink(ns: &Namespace) -> Handle {
    let (connection, handle, _) = ns.enter(rtnetlink::new_connection).unwrap();
    spawn_local(connection);
    handle
}

pub async fn up(netlink: &Handle, name: &str) {
    netlink.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await.unwrap();
}

/// Writes a sysctl of a namespace, if it exists.
pub fn write_sysctl(ns: &Namespace, name: &str, value: &str) {
    match ns.enter(|| std::fs::write(format!("/proc/sys/{name}"), value)) {
        Err(e) if e.kind() != ErrorKind::NotFound => panic!("{name}: {e}"),
        _ => {}
    }
}

/// A packet socket that captures what a host sends and receives.
pub struct Tap(Socket);

impl Tap {
    pub fn new(ns: &Namespace) -> Self {
        let every = Protocol::from(i32::from(0x0003_u16.to_be())); // ETH_P_ALL
        let socket = ns.enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(every))).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// The TCP frames since the last call, in both directions.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.0.read(&mut buffer) {
            if Segment::parse(&buffer[..length]).is_some() {
                frames.push(buffer[..length].to_vec());
            }
        }
        frames
    }

    pub fn headers(&mut self) -> Vec<Header> {
        self.frames().iter().map(|frame| Segment::parse(frame).unwrap().header).collect()
    }
}
