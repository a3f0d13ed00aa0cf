//! Networks with IPv6 on the running kernel: NAT, conntrack, captures, sockets,
//! wires.
//!
//! ```text
//! client 2001:db8:1::2 ----- 2001:db8:1::1 nat 2001:db8:2::1 ----- 2001:db8:2::2 server
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::capture::{Act, Probe};
use lab::conntrack::{Conntrack, Event, Recorder, TcpState, Transport, Tuple};
use lab::evidence::counters::Counters;
use lab::evidence::sockets::{self, State};
use lab::hops::{HopFate, Payload, hops, probed};
use lab::network::{Network, sysctl};
use lab::probe::tcp::{Answer, connect};
use lab::probe::{self, Flow, Side};
use lab::report::ladder::Ladder;
use lab::report::pcapng::{self, Frames};
use lab::tap::Tap;
use lab::topology::rule::{CtState, Hook, Rule};
use lab::topology::{Family, Topology};
use lab::wire::policy::{Chain, Duplicate, ShiftTimestampClock};
use lab::wire::tw_recycle::{self, TwRecycle};
use lab::wire::{Direction, now};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_masqueraded_connection_is_seen_by_all,
    both_families_share_a_host,
    ipv6_is_off_where_there_is_no_address,
    a_bridge_finds_neighbours,
    icmpv6_is_matched_and_tracked,
    a_wire_shifts_timestamps_and_checks_them,
    a_socket_is_destroyed,
];

const PATIENCE: Duration = Duration::from_secs(5);
const CLIENT: &str = "2001:db8:1::2";
const NAT: &str = "2001:db8:2::1";
const SERVER: &str = "2001:db8:2::2";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn behind_nat() -> Topology {
    Topology::new()
        .host("client")
        .router("nat")
        .host("server")
        .link("client 2001:db8:1::2/64", "nat 2001:db8:1::1/64")
        .link("nat 2001:db8:2::1/64", "server 2001:db8:2::2/64")
        .rule("nat", Rule::masquerade("masquerade", "server"))
}

fn a_masqueraded_connection_is_seen_by_all() {
    alone_async(|| async {
        let network = applicable(Network::build(behind_nat()).await);
        let (client, nat, server) = (network.host("client"), network.host("nat"), network.host("server"));
        assert_eq!((client.address(), server.address()), (address(CLIENT), address(SERVER)));
        let events = applicable(Recorder::start(nat.namespace()));
        let before = Counters::read(server.namespace()).unwrap();
        let tap = Tap::on(network.hosts()).unwrap();
        tap.ready();
        let service = SocketAddr::new(server.address(), 80);
        let opened = Flow::try_open(client, 0, service, server, 80, PATIENCE).await.unwrap();
        let mut flow = opened.expect("the network is healthy");
        assert_eq!(flow.exchange(Side::Client, PATIENCE).await.unwrap(), Answer::Received);
        let seen = flow.stream(Side::Server).peer_addr().unwrap();
        assert_eq!(seen.ip(), address(NAT));
        let own = flow.stream(Side::Client).local_addr().unwrap();

        // conntrack, by list and by tuple.
        let conntrack = applicable(Conntrack::of(nat.namespace()));
        let original = Tuple::tcp(own, service);
        let entry = conntrack.entry(&original).unwrap().expect("an entry");
        assert_eq!(entry.reply, Tuple::tcp(service, seen));
        assert_eq!(entry.tcp_state, Some(TcpState::Established));
        assert_eq!(entry.flow(), format!("tcp {own} > {service}, as from {seen}"));
        assert_eq!(conntrack.entries().unwrap().iter().filter(|e| e.is_of(&original)).count(), 1);

        // Sockets, counters, rules.
        let listed = sockets::sockets(server.namespace()).unwrap();
        let socket = listed.iter().find(|s| s.state == State::Established).expect("a connection");
        assert_eq!((socket.local, socket.remote), (service, seen));
        assert!(socket.to_string().contains("[2001:db8:2::2]:80"), "{socket}");
        let changes = Counters::changes(&before, &Counters::read(server.namespace()).unwrap());
        assert_eq!(changes.get("PassiveOpens"), Some(1));
        assert!(changes.get("Ip6InDelivers") > Some(2), "{changes}");
        assert_eq!(changes.get("Tcp.InCsumErrors"), Some(0));
        // One SYN of 40 + 40 bytes.
        assert_eq!(
            nat.firewall().counter("masquerade").unwrap().to_string(),
            "masquerade: packets 1 bytes 80"
        );

        // The entry is deleted, by tuple and by flush, and its events are reported.
        assert!(conntrack.delete(&original).unwrap());
        assert!(!conntrack.delete(&original).unwrap());
        conntrack.flush().unwrap();
        assert_eq!(conntrack.entries().unwrap(), []);
        let (heard, more) = events.end().unwrap();
        assert!(!more);
        let is_of = |event: &Event| event.entry().is_some_and(|entry| entry.original == original);
        let heard: Vec<_> = heard.iter().map(|(_, event)| event).filter(|event| is_of(event)).collect();
        assert!(matches!(heard[..], [Event::New(_), .., Event::Destroy(_)]), "{heard:?}");

        // The capture: every packet of the connection along its whole path.
        let until = now();
        let mut capture = tap.end(&network, until).unwrap();
        let probe = Probe {
            at: Duration::ZERO,
            host: "client".into(),
            act: Act::Connects,
            local: Some(own),
            remote: service,
            met: Some("connected".into()),
            row: None,
        };
        capture.probes = vec![probe];
        let all = hops(&capture);
        assert!(all.iter().all(|hop| matches!(hop.packet.what, Payload::Tcp(..))), "{all:?}");
        assert!(all.iter().all(|hop| hop.fate == HopFate::Arrived), "{all:?}");
        let translated: Vec<_> =
            all.iter().filter_map(|hop| Some((&all[hop.before?].packet, &hop.packet))).collect();
        // Half of the hops continue on a second link.
        assert_eq!(2 * translated.len(), all.len());
        assert_eq!(
            (translated[0].0.endpoints(), translated[0].1.endpoints()),
            ((own, service), (seen, service))
        );
        assert_eq!(probed(&capture, &all).len(), 1);
        // Long lines are folded, next to the columns of the hosts.
        let ladder = Ladder::of(&capture).text(80).replace('│', " ");
        let ladder = ladder.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in [format!("{own} > {service}"), format!("{seen} > {service}"), "SYN".to_owned()] {
            assert!(ladder.contains(&words), "{words} is not in\n{ladder}");
        }
        let mut file = vec![];
        pcapng::write(&capture, Frames::BothEnds, "a test", &mut file).unwrap();
        let has = |words: &str| file.windows(words.len()).any(|bytes| bytes == words.as_bytes());
        assert!(has("client nat, 2001:db8:1::2"));
        assert!(has(&format!("nat translates {own} > {service} of frame")));
    });
}

fn both_families_share_a_host() {
    alone_async(|| async {
        let topology = Topology::new()
            .host("client")
            .router("nat")
            .host("server")
            .link("client 10.0.1.2/24 2001:db8:1::2/64", "nat 10.0.1.1/24 2001:db8:1::1/64")
            .link("nat 192.0.2.1/24 2001:db8:2::1/64", "server 192.0.2.2/24 2001:db8:2::2/64")
            .rule("nat", Rule::masquerade("masquerade", "server"))
            .rule("nat", Rule::drop("invalid").ct_state(CtState::INVALID));
        let network = applicable(Network::build(topology).await);
        let (client, nat, server) = (network.host("client"), network.host("nat"), network.host("server"));
        for (family, nat_address) in [(Family::V4, "192.0.2.1"), (Family::V6, NAT)] {
            let service = SocketAddr::new(server.address_of(family).expect("an address"), 80);
            let opened = Flow::try_open(client, 0, service, server, 80, PATIENCE).await.unwrap();
            let mut flow = opened.expect("the network is healthy");
            assert_eq!(flow.exchange(Side::Server, PATIENCE).await.unwrap(), Answer::Received);
            let seen = flow.stream(Side::Server).peer_addr().unwrap();
            assert_eq!(seen.ip().to_canonical(), address(nat_address));
            // Whatever the family of its socket, the addresses are those of the
            // packets.
            let listed = sockets::sockets(server.namespace()).unwrap();
            let here = |s: &&sockets::Socket| s.state == State::Established && s.local == service;
            assert_eq!(listed.iter().filter(here).count(), 1, "{listed:?}");
        }
        // One rule, in the tables of both families.
        assert_eq!(nat.firewall().counter("masquerade").unwrap().packets, 2);
        let entries = applicable(Conntrack::of(nat.namespace())).entries().unwrap();
        let families: BTreeSet<_> = entries.iter().map(|entry| entry.original.family()).collect();
        assert_eq!((entries.len(), families), (2, BTreeSet::from(Family::BOTH)));
    });
}

fn ipv6_is_off_where_there_is_no_address() {
    alone_async(|| async {
        let topology = Topology::new()
            .hosts(["old", "new"])
            .router("gw")
            .link("old 10.0.0.2/24", "gw 10.0.0.1/24")
            .link("new 2001:db8::2/64", "gw 2001:db8::1/64");
        let network = applicable(Network::build(topology).await);
        let disabled = |host: &str, interface: &str| {
            let key = format!("net.ipv6.conf.{interface}.disable_ipv6");
            sysctl::get(network.host(host).namespace(), &key).unwrap()
        };
        for (host, interface, value) in [
            ("old", "gw", "1"),
            ("old", "lo", "1"),
            ("gw", "old", "1"),
            ("gw", "new", "0"),
            ("new", "gw", "0"),
        ] {
            assert_eq!(disabled(host, interface), value, "{host} {interface}");
        }
        let own = probe::address::of_family(network.host("new").namespace(), Family::V6).unwrap();
        assert!(own.contains(&address("2001:db8::2")), "{own:?}");
        assert!(probe::address::of_family(network.host("old").namespace(), Family::V6).unwrap().is_empty());
        probe::route::look_up(network.host("new").namespace(), address("2001:db8:ffff::1")).unwrap();
        let unknown =
            probe::route::look_up(network.host("old").namespace(), address("2001:db8::2")).unwrap_err();
        assert_eq!(unknown.raw_os_error(), Some(libc::ENETUNREACH));
    });
}

fn a_bridge_finds_neighbours() {
    alone_async(|| async {
        let topology = Topology::new()
            .hosts(["a", "b"])
            .bridge("lan")
            .router("gw")
            .host("server")
            .link("a 10.0.1.2/24", "lan")
            .link("b 10.0.1.3/24", "lan")
            .link("gw 10.0.1.1/24", "lan")
            .link("gw 192.0.2.1/24", "server 192.0.2.2/24")
            .in_family(Family::V6);
        let network = applicable(Network::build(topology).await);
        let tap = Tap::on(network.hosts()).unwrap();
        tap.ready();
        for from in ["a", "b"] {
            for to in ["server", "a"] {
                let (from, to) = (network.host(from), network.host(to));
                let service = (to.address(), 80);
                let mut flow = Flow::open(from, service, to, 80).await.unwrap();
                assert_eq!(flow.exchange(Side::Client, PATIENCE).await.unwrap(), Answer::Received);
            }
        }
        // Neighbour discovery does not belong to the probes.
        let capture = tap.end(&network, now()).unwrap();
        let discovery = |bytes: &[u8]| bytes.get(12..14) == Some(&[0x86, 0xdd]) && bytes.get(20) == Some(&58);
        assert!(capture.frames.iter().any(|frame| discovery(&frame.bytes)));
        assert!(hops(&capture).iter().all(|hop| matches!(hop.packet.what, Payload::Tcp(..))));
    });
}

fn icmpv6_is_matched_and_tracked() {
    alone_async(|| async {
        let topology = behind_nat()
            .rule("nat", Rule::count("echo").icmpv6().destination(address(SERVER)))
            .rule("nat", Rule::notrack("untracked").udp().destination_port(53))
            .rule("server", Rule::count("from the nat").on(Hook::Input).source(address(NAT)));
        let network = applicable(Network::build(topology).await);
        let (client, nat, server) = (network.host("client"), network.host("nat"), network.host("server"));
        let ping = client.namespace().enter(|| {
            socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, Some(socket2::Protocol::ICMPV6))
                .unwrap()
        });
        // RFC 4443 4.1; the kernel adds the checksum. The identifier is 7.
        ping.send_to(&[128, 0, 0, 0, 0, 7, 0, 1], &SocketAddr::new(server.address(), 0).into()).unwrap();
        ping.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [std::mem::MaybeUninit::<u8>::uninit(); 64];
        ping.recv(&mut answer).unwrap();
        assert_eq!(nat.firewall().counter("echo").unwrap().packets, 1);
        assert_eq!(server.firewall().counter("from the nat").unwrap().packets, 1);
        let conntrack = applicable(Conntrack::of(nat.namespace()));
        let entry =
            conntrack.entry(&Tuple::echo(client.address(), server.address(), 7)).unwrap().expect("an entry");
        assert!(
            matches!(entry.original.transport, Transport::Icmpv6 { kind: 128, code: 0, id: 7 }),
            "{entry}"
        );
        assert!(entry.to_string().starts_with("icmpv6 58 "), "{entry}");

        let socket =
            client.namespace().enter(|| std::net::UdpSocket::bind((client.address(), 5000)).unwrap());
        socket.send_to(b"?", (server.address(), 53)).unwrap();
        assert_eq!(nat.firewall().counter("untracked").unwrap().packets, 1);
        let udp = |tuple: &Tuple| matches!(tuple.transport, Transport::Udp { .. });
        assert!(!conntrack.entries().unwrap().iter().any(|entry| udp(&entry.original)));
    });
}

fn a_wire_shifts_timestamps_and_checks_them() {
    alone_async(|| async {
        let topology = Topology::new()
            .hosts(["a", "b"])
            .router("nat")
            .host("server")
            .link("a 10.0.1.2/24", "nat 10.0.1.1/24")
            .wire("b 10.0.2.2/24", "nat 10.0.2.1/24")
            .wire("nat 192.0.2.1/24", "server 192.0.2.2/24")
            .rule("nat", Rule::source_nat("nat", [192, 0, 2, 1]).out("server"))
            // a and b have the same clock.
            .sysctl_where_known("a", "net.ipv4.tcp_timestamps", 2)
            .sysctl_where_known("b", "net.ipv4.tcp_timestamps", 2)
            .in_family(Family::V6);
        let service = Family::V6.socket(([192, 0, 2, 2], 80));
        let network = applicable(Network::build(topology).await);
        let server = network.host("server");
        // An hour behind, and every segment duplicated.
        let slow = ShiftTimestampClock::new(Direction::There, 0_u32.wrapping_sub(3_600_000));
        let twice = Chain::new().then(slow).then(Duplicate::matching(|_, _| true));
        let first = network.wire("b", "nat", Box::new(twice)).unwrap();
        let (check, handle) = TwRecycle::new(tw_recycle::Rule::From3_17, Direction::There);
        let second = network.wire("nat", "server", Box::new(check)).unwrap();

        let mut flow = Flow::open(network.host("b"), service, server, 80).await.unwrap();
        assert_eq!(flow.exchange(Side::Client, PATIENCE).await.unwrap(), Answer::Received);
        flow.close(Side::Client).await.unwrap();
        Flow::open(network.host("a"), service, server, 80).await.unwrap().close(Side::Server).await.unwrap();
        // The server has seen a's clock at the address that b also has.
        let met = connect(network.host("b"), 0, service, Duration::from_millis(200)).await.unwrap();
        assert_eq!(met.to_string(), "timed out");
        second.caught_up().await;
        // Its SYN arrived twice.
        assert_eq!(handle.counters().paws_passive, 2);

        let headers =
            |wire: &lab::wire::Wire| wire.frames().iter().filter_map(|record| record.header).count();
        assert!(headers(&first) > 10 && headers(&second) > 10);
        for wire in [&first, &second] {
            wire.check().unwrap();
            assert_eq!(wire.lost().unwrap(), 0);
        }
        for host in network.hosts() {
            let counters = Counters::read(host.namespace()).unwrap();
            assert_eq!(counters.get("Tcp.InCsumErrors"), Some(0), "{}", host.name());
        }
    });
}

fn a_socket_is_destroyed() {
    alone_async(|| async {
        let network = applicable(Network::build(behind_nat()).await);
        let (client, server) = (network.host("client"), network.host("server"));
        let mut flow = Flow::open(client, (server.address(), 80), server, 80).await.unwrap();
        let listed = sockets::sockets(client.namespace()).unwrap();
        let socket = listed.iter().find(|s| s.state == State::Established).expect("a connection");
        applicable(sockets::destroy(client.namespace(), socket));
        assert_eq!(flow.watch(Side::Server, PATIENCE).await.unwrap(), Answer::Reset);
    });
}
