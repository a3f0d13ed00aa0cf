//! Counters, sockets, the kernel log, sysctls and token buckets on a real kernel.
//!
//! Each test has its own thread and network namespaces.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use faultlab_testkit::{alone_async, applicable};
use lab::Error;
use lab::capture::Frame;
use lab::evidence::counters::Counters;
use lab::evidence::kernel_log::KernelLog;
use lab::evidence::sockets::{self, Socket, State, TimerKind};
use lab::network::{Namespace, Network, qdisc, sysctl};
use lab::tap::Tap;
use lab::topology::{Sysctl, Topology};
use lab::wire::now;
use rtnetlink::{LinkUnspec, LinkVeth};
use socket2::{SockRef, TcpKeepalive};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_refused_connection_is_counted_here_and_nowhere_else,
    sockets_are_listed_with_their_timers,
    a_destroyed_socket_is_aborted,
    a_sysctl_is_set_in_one_namespace,
    a_sysctl_of_two_words_or_without_a_reader_is_set,
    what_cannot_be_set_is_told,
    the_kernel_log_tells_what_came_since,
    a_capture_says_what_it_has_no_room_for,
    a_token_bucket_needs_an_interface_and_a_rate,
    a_sleeping_sender_holds_a_device,
];

/// Runs `body` on its own thread with an empty namespace, in a runtime.
fn on_host<F: Future<Output = ()>>(body: impl FnOnce(Namespace) -> F + Send + 'static) {
    alone_async(|| async { body(applicable(Namespace::new("host"))).await });
}

/// The interfaces of a namespace.
struct Links {
    handle: rtnetlink::Handle,
}

impl Links {
    fn of(namespace: &Namespace) -> Self {
        let (connection, handle, _) = namespace.enter(rtnetlink::new_connection).expect("rtnetlink");
        tokio::spawn(connection);
        Self { handle }
    }

    async fn up(&self, index: u32) {
        let link = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(link).execute().await.expect("link up");
    }

    /// A veth pair, both ends up. The index of the end called `name`.
    async fn veth(&self, namespace: &Namespace, name: &str) -> u32 {
        let peer = format!("{name}p");
        self.handle.link().add(LinkVeth::new(name, &peer).build()).execute().await.expect("veth");
        self.up(index(namespace, &peer)).await;
        self.up(index(namespace, name)).await;
        index(namespace, name)
    }
}

async fn lo_up(namespace: &Namespace) {
    Links::of(namespace).up(index(namespace, "lo")).await;
}

fn index(namespace: &Namespace, name: &str) -> u32 {
    namespace.enter(|| nix::net::if_::if_nametoindex(name)).expect("interface")
}

fn listen(namespace: &Namespace) -> (TcpListener, SocketAddr) {
    let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("listen");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

fn find(namespace: &Namespace, is: impl Fn(&Socket) -> bool) -> Option<Socket> {
    sockets::sockets(namespace).expect("sockets").into_iter().find(is)
}

fn a_refused_connection_is_counted_here_and_nowhere_else() {
    on_host(|host| async move {
        let other = Namespace::new("other").expect("namespace");
        lo_up(&host).await;
        let before = [&host, &other].map(|namespace| Counters::read(namespace).expect("counters"));

        let (listener, address) = listen(&host);
        drop(listener);
        let refused = host.enter(|| TcpStream::connect(address)).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let after = [&host, &other].map(|namespace| Counters::read(namespace).expect("counters"));
        let changes = Counters::changes(&before[0], &after[0]);
        assert_eq!(changes.get("Tcp.OutRsts"), Some(1), "{changes}");
        assert_eq!(changes.get("AttemptFails"), Some(1), "{changes}");
        assert_eq!(changes.get("ListenDrops"), Some(0), "{changes}");
        assert_eq!(changes.get("NoSuchCounter"), None);
        assert!(changes.to_string().contains("OutRsts +1"), "{changes}");
        assert_eq!(Counters::changes(&before[1], &after[1]).to_string(), "none");
    });
}

fn sockets_are_listed_with_their_timers() {
    on_host(|host| async move {
        lo_up(&host).await;
        let (listener, address) = listen(&host);
        let mut client = host.enter(|| TcpStream::connect(address)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(7200));
        SockRef::from(&client).set_tcp_keepalive(&keepalive).expect("keepalive");

        let ours = client.local_addr().expect("address");
        let of_client = |socket: &Socket| socket.local == ours;
        let of_server = |socket: &Socket| socket.remote == ours;

        let list = applicable(sockets::sockets(&host));
        // Both of the server's sockets have the same local address; the listener's
        // remote address is 0.0.0.0.
        let states: Vec<_> = list.iter().filter(|socket| !of_client(socket)).map(|s| s.state).collect();
        assert_eq!(states, [State::Listen, State::Established]);
        let timer = list.iter().find(|socket| of_client(socket)).and_then(|s| s.timer).expect("a timer");
        assert_eq!((timer.kind, timer.retransmits), (TimerKind::Keepalive, 0));
        assert!((7190..=7200).contains(&timer.expires.as_secs()), "{timer}");

        // The server closes first and keeps the TIME_WAIT.
        drop(server);
        assert_eq!(client.read(&mut [0]).expect("end of file"), 0);
        drop(client);
        let socket = find(&host, of_server).expect("closed");
        let timer = socket.timer.expect("a timer");
        assert_eq!((socket.state, timer.kind), (State::TimeWait, TimerKind::TimeWait));
        // include/net/tcp.h: TCP_TIMEWAIT_LEN, 60 s.
        assert!((55..=60).contains(&timer.expires.as_secs()), "{socket}");
        assert_eq!(find(&host, of_client), None);
    });
}

fn a_destroyed_socket_is_aborted() {
    on_host(|host| async move {
        lo_up(&host).await;
        let (listener, address) = listen(&host);
        let mut client = host.enter(|| TcpStream::connect(address)).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        let ours = client.local_addr().expect("address");
        let list = applicable(sockets::sockets(&host));
        let socket = list.iter().find(|s| s.local == ours).expect("the client's socket");

        applicable(sockets::destroy(&host, socket));
        let error = client.read(&mut [0]).expect_err("aborted");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        let error = server.read(&mut [0]).expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let gone = sockets::destroy(&host, socket).expect_err("gone");
        assert_eq!(gone.errno(), Some(libc::ENOENT));
    });
}

fn a_sysctl_is_set_in_one_namespace() {
    on_host(|host| async move {
        let other = Namespace::new("other").expect("namespace");
        let key = "net.ipv4.tcp_syn_retries";
        if !sysctl::exists(&host, key).expect("exists") {
            applicable(sysctl::set(&host, key, "3"));
        }
        let default = sysctl::get(&other, key).expect("get");
        sysctl::set(&host, key, "3").expect("set");
        assert_eq!(sysctl::get(&host, key).expect("get"), "3");
        assert_eq!(sysctl::get(&other, key).expect("get"), default);
    });
}

fn a_sysctl_of_two_words_or_without_a_reader_is_set() {
    on_host(|host| async move {
        sysctl::set(&host, "net.ipv4.ip_local_port_range", "40000 40011").expect("two words");
        assert_eq!(sysctl::get(&host, "net.ipv4.ip_local_port_range").expect("get"), "40000 40011");
        sysctl::set(&host, "net.ipv4.route.flush", "1").expect("write only");
    });
}

fn what_cannot_be_set_is_told() {
    on_host(|host| async move {
        let refused = |key, value| sysctl::set(&host, key, value).expect_err("refused");
        assert!(!sysctl::exists(&host, "net.ipv4.no_such_key").expect("exists"));
        assert_eq!(
            refused("net.ipv4.no_such_key", "1").to_string(),
            "net.ipv4.no_such_key is missing; host has no such sysctl on this kernel"
        );
        assert_eq!(refused("net.ipv4.ip_local_port_range", "2 1").errno(), Some(libc::EINVAL));
        // The kernel accepts the first word and silently ignores the second.
        assert_eq!(
            refused("net.ipv4.ip_forward", "1 0").to_string(),
            "host: write net.ipv4.ip_forward = 1 0: it reads back as 1"
        );
        for key in ["net.netfilter.nf_conntrack_max", "kernel.panic"] {
            assert!(matches!(refused(key, "1"), Error::Lab(_)), "{key}");
            let pin = Sysctl { key: key.to_owned(), value: "1".to_owned(), optional: true };
            let pinned = sysctl::pin(&host, &[pin]);
            assert!(matches!(pinned, Err(Error::Lab(_))), "{key}: {pinned:?}");
        }
    });
}

fn the_kernel_log_tells_what_came_since() {
    on_host(|host| async move {
        let mut log = applicable(KernelLog::open());
        Links::of(&host).veth(&host, "faultlab0").await;
        // net/sched/sch_tbf.c: "burst %llu is lower than device %s mtu (%u) !"
        applicable(qdisc::token_bucket(&host, "faultlab0", 1000, 100, 1000));
        let warning = "burst 100 is lower than device faultlab0";
        let record = log.wait_for(warning, |record| record.text.contains(warning), Duration::from_secs(10));
        let record = record.await.expect("a warning of sch_tbf");
        assert_eq!((record.level, record.unregister_netdevice()), (4, None));
        assert!(log.take().expect("take").contains(&record));
    });
}

fn a_capture_says_what_it_has_no_room_for() {
    const SENT: usize = 1500;
    alone_async(|| async {
        let two = Topology::new().hosts(["a", "b"]).link("a 10.0.0.1/24", "b 10.0.0.2/24");
        let network = applicable(Network::build(two).await);
        let tap = Tap::on(network.hosts()).expect("a capture");
        tap.ready();
        let bound = |host: &str| {
            let host = network.host(host);
            host.namespace().enter(|| UdpSocket::bind((host.address(), 53))).expect("a socket")
        };
        let [client, server] = ["a", "b"].map(bound);
        for _ in 0..SENT {
            client.send_to(b"?", server.local_addr().expect("an address")).expect("it is sent");
        }
        let mut capture = tap.end(&network, now()).expect("frames");
        capture.sort();
        let of = |outgoing| capture.frames.iter().filter(|f| f.outgoing == outgoing).count();
        // Each packet is captured where it leaves and where it arrives, until the rings
        // are full.
        assert!(of(true) > 0 && of(true) == of(false), "{} and {}", of(true), of(false));
        assert!(capture.lost > 0);
        assert_eq!(capture.frames.len() as u64 + capture.lost, 2 * SENT as u64);
        let leaves_first = |pair: &[Frame]| pair[0].outgoing && !pair[1].outgoing;
        assert!(capture.frames.chunks(2).all(leaves_first), "{:?}", capture.frames);
    });
}

fn a_token_bucket_needs_an_interface_and_a_rate() {
    on_host(|host| async move {
        let error = qdisc::token_bucket(&host, "eth7", 1, 2000, 1000).expect_err("no eth7");
        assert_eq!(error.errno(), Some(libc::ENODEV), "{error}");
        let error = qdisc::token_bucket(&host, "lo", 0, 2000, 1000).expect_err("no rate");
        assert!(matches!(error, Error::Lab(_)), "{error}");
    });
}

/// A packet socket with a full buffer sleeps in sendto(). Meanwhile the device
/// that it sends to cannot be freed: net/packet/af_packet.c `packet_snd`.
fn a_sleeping_sender_holds_a_device() {
    const HELD: Duration = Duration::from_secs(2);
    on_host(|host| async move {
        let links = Links::of(&host);
        let d1 = links.veth(&host, "d1").await;
        let d2 = links.veth(&host, "d2").await;
        // 2000 bytes leave at once; the next frame of 1000 would take 1000 s.
        applicable(qdisc::token_bucket(&host, "d1", 1, 2000, 1_000_000));

        // Do not bind the socket: a bound one is woken when its device goes away.
        let socket = host.enter(|| socket2::Socket::new(libc::AF_PACKET.into(), socket2::Type::RAW, None));
        let socket = socket.expect("packet socket");
        // The kernel raises it to the minimum, SOCK_MIN_SNDBUF.
        socket.set_send_buffer_size(0).expect("SO_SNDBUF");
        // The device is released after this time, whatever else happens.
        socket.set_write_timeout(Some(HELD)).expect("SO_SNDTIMEO");
        let full = (0..100).find_map(|_| send_frame(&socket, d1, libc::MSG_DONTWAIT).err()).expect("full");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);

        let (tell, told) = mpsc::channel();
        let started = Instant::now();
        let sender = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).expect("listener");
            send_frame(&socket, d2, 0)
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().expect("thread id"));
        // pid (comm) state: S is a sleep that a signal interrupts.
        while !std::fs::read_to_string(&stat).expect("stat").contains(") S ") {
            assert!(started.elapsed() < HELD, "the sender does not sleep");
            std::thread::yield_now();
        }
        links.handle.link().del(d2).execute().await.expect("delete");
        let waited = started.elapsed();
        let ended = sender.join().expect("sender").expect_err("no room");
        assert_eq!(ended.kind(), io::ErrorKind::WouldBlock);
        // The kernel checks at least every 250 ms whether the device is free.
        assert!(waited >= HELD, "{waited:?}");
    });
}

#[allow(unsafe_code, reason = "a sockaddr_ll is only to be had in raw bytes")]
fn send_frame(socket: &socket2::Socket, index: u32, flags: i32) -> io::Result<()> {
    // SAFETY: sockaddr_ll consists of plain integers, for which 0 is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.unsigned_abs().try_into().expect("a short");
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address).try_into().expect("short");
    let frame = [0_u8; 1000];
    // SAFETY: both pointers are to live values of the given lengths.
    let sent = unsafe {
        let address = (&raw const address).cast();
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), flags, address, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
