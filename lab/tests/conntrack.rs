//! conntrack's entries, events and statistics on the running kernel.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use faultlab_testkit::routed::{CLIENT, PATIENCE, ROUTER_WAN, Routed, SERVER, routed, udp, v4};
use faultlab_testkit::{applicable, leave_out};
use lab::Error;
use lab::conntrack::{
    Conntrack, Entry, Event, Events, Recorder, Statistic, Stats, Status, TcpState, Transport, Tuple,
};
use lab::evidence::invalid::InvalidLogs;
use lab::network::firewall::Firewall;
use lab::topology::rule::{CtState, Rule};
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    the_entry_of_a_connection,
    entries_are_listed_as_conntrack_lists_them,
    deleted_entries_are_gone,
    the_life_of_a_connection_in_events,
    an_event_that_does_not_come_has_a_deadline,
    lost_events_are_reported,
    a_recorder_knows_when,
    an_invalid_packet_is_a_change_of_the_statistics,
    an_invalid_segment_is_spoken_of,
    exhausted_ports_fail_to_insert,
    the_table_of_an_idle_namespace_is_empty,
];

fn masquerade(net: &Routed) -> Firewall {
    applicable(Firewall::install(&net.router, &[Rule::masquerade("out", "wan")]))
}

/// A connection whose ends have exchanged a byte, and its tuple.
fn connected(net: &Routed, to: (Ipv4Addr, u16)) -> (TcpStream, TcpStream, Tuple) {
    let listener = net.listen(to.1);
    let mut client = net.connect(to).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let tuple = Tuple::tcp(v4(client.local_addr().unwrap()), to);
    (client, server, tuple)
}

fn the_entry_of_a_connection() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let conntrack = applicable(Conntrack::of(&net.router));
        let (client, server, tuple) = connected(net, (SERVER, 80));

        let entry = conntrack.entry(&tuple).unwrap().expect("the flow has an entry");
        assert_eq!(entry.tcp_state, Some(TcpState::Established));
        assert!(entry.status.contains(Status::ASSURED), "{entry}");
        assert!(entry.status.contains(Status::SRC_NAT), "{entry}");
        let left = entry.timeout.unwrap();
        assert!((431_990..=432_000).contains(&left.as_secs()), "{entry}");

        // The reply as it arrives: from the server, to the router.
        let peer = v4(server.peer_addr().unwrap());
        assert_eq!(entry.reply, Tuple::tcp((SERVER, 80), peer));
        assert_eq!(peer.0, ROUTER_WAN);
        assert_eq!(conntrack.entry(&entry.reply).unwrap().map(|e| e.id), Some(entry.id));

        let port = v4(client.local_addr().unwrap()).1;
        let expected = format!(
            "tcp 6 {} ESTABLISHED src=10.0.1.2 dst=192.0.2.2 sport={port} dport=80 \
             src=192.0.2.2 dst=192.0.2.1 sport=80 dport={} [ASSURED]",
            left.as_secs(),
            peer.1
        );
        assert_eq!(entry.to_string(), expected);
    });
}

fn entries_are_listed_as_conntrack_lists_them() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let conntrack = applicable(Conntrack::of(&net.router));
        let _stream = connected(net, (SERVER, 80));
        udp(&net.client, CLIENT, 5000).send_to(b"?", (SERVER, 53)).unwrap();
        echo(net, 7);

        let entries = conntrack.entries().unwrap();
        let protocols: Vec<_> =
            entries.iter().map(|e| e.to_string().split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(protocols, ["icmp", "tcp", "udp"]);
        let dns = conntrack.entry(&Tuple::udp((CLIENT, 5000), (SERVER, 53))).unwrap().unwrap();
        assert!(!dns.status.contains(Status::SEEN_REPLY));
        assert!(dns.to_string().contains(" dport=53 [UNREPLIED] src="), "{dns}");
        let ping = conntrack.entry(&Tuple::echo(CLIENT, SERVER, 7)).unwrap().unwrap();
        assert_eq!(ping.reply.transport, Transport::Icmp { kind: 0, code: 0, id: 7 });

        let listing = net.router.enter(|| std::process::Command::new("conntrack").arg("-L").output());
        let Ok(listing) = listing else {
            leave_out("conntrack is not installed: nothing to compare with");
        };
        // conntrack(8) pads its columns, and a timeout may have counted down between
        // the two.
        let timeless = |line: &str| {
            let mut words: Vec<_> =
                line.split_whitespace().filter(|w| !w.contains("mark=") && !w.contains("use=")).collect();
            words.remove(2);
            words.join(" ")
        };
        let mut theirs: Vec<_> = String::from_utf8(listing.stdout).unwrap().lines().map(timeless).collect();
        let mut ours: Vec<_> = entries.iter().map(|entry| timeless(&entry.to_string())).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs);
    });
}

/// Sends an echo request and waits for the reply.
fn echo(net: &Routed, id: u8) {
    let socket = net.client.enter(|| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4))
            .unwrap()
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let checksum = !(0x0800u16 + u16::from(id));
    let [high, low] = checksum.to_be_bytes();
    let to = std::net::SocketAddrV4::new(SERVER, 0);
    socket.send_to(&[8, 0, high, low, 0, id, 0, 0], &to.into()).unwrap();
    (&socket).read_exact(&mut [0; 28]).unwrap();
}

fn deleted_entries_are_gone() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let conntrack = applicable(Conntrack::of(&net.router));
        let first = connected(net, (SERVER, 80));
        let second = connected(net, (SERVER, 81));
        echo(net, 9);
        assert_eq!(conntrack.entries().unwrap().len(), 3);

        assert!(conntrack.delete(&first.2).unwrap());
        assert!(!conntrack.delete(&first.2).unwrap());
        assert_eq!(conntrack.entry(&first.2).unwrap(), None);
        assert!(conntrack.entry(&second.2).unwrap().is_some());
        assert!(conntrack.delete(&Tuple::echo(CLIENT, SERVER, 9)).unwrap());

        let of_port_81 = |entry: &Entry| entry.is_of(&second.2);
        assert_eq!(conntrack.delete_where(of_port_81).unwrap(), 1);
        assert_eq!(conntrack.delete_where(of_port_81).unwrap(), 0);

        echo(net, 9);
        conntrack.flush().unwrap();
        assert_eq!(conntrack.entries().unwrap(), []);
    });
}

fn the_life_of_a_connection_in_events() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let mut events = Events::listen(&net.router).unwrap();
        let (client, server, tuple) = connected(net, (SERVER, 80));

        let first = events.next(PATIENCE).await.unwrap();
        assert!(matches!(first, Event::New(_)));
        let text = first.to_string();
        assert!(text.starts_with("[NEW] tcp 6 120 SYN_SENT src=10.0.1.2 dst=192.0.2.2 sport="), "{text}");
        assert!(text.contains(" dport=80 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 sport=80 dport="), "{text}");

        let is = |state| move |event: &Event| event.entry().is_some_and(|e| e.tcp_state == Some(state));
        let established = events.until("ESTABLISHED", PATIENCE, is(TcpState::Established)).await.unwrap();
        assert!(matches!(established, Event::Update(_)));

        drop(client);
        drop(server);
        events.until("TIME_WAIT", PATIENCE, is(TcpState::TimeWait)).await.unwrap();

        applicable(Conntrack::of(&net.router)).delete(&tuple).unwrap();
        let destroyed = |event: &Event| matches!(event, Event::Destroy(entry) if entry.is_of(&tuple));
        let last = events.until("DESTROY of the flow", PATIENCE, destroyed).await.unwrap();
        assert!(last.to_string().starts_with("[DESTROY] tcp 6 "), "{last}");

        // The record also contains the awaited event.
        let record = events.take().unwrap();
        assert_eq!(record.first(), Some(&first));
        assert_eq!(record.last(), Some(&last));
        let states: Vec<_> = record.iter().filter_map(Event::entry).filter_map(|e| e.tcp_state).collect();
        let states: Vec<_> = states.iter().map(ToString::to_string).collect();
        let life = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "LAST_ACK", "TIME_WAIT"];
        assert!(life.iter().all(|state| states.iter().any(|s| s == state)), "{states:?}");
        assert_eq!(events.take().unwrap(), []);
    });
}

fn an_event_that_does_not_come_has_a_deadline() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let mut events = Events::listen(&net.router).unwrap();
        let error = events.until("a miracle", Duration::from_millis(20), |_| true).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }));
        assert_eq!(error.to_string(), "router: waited 0.02 s for a miracle");

        // Begin to wait before the event occurs.
        let client = udp(&net.client, CLIENT, 5000);
        let later = async {
            // The other half of the join waits by now.
            tokio::task::yield_now().await;
            client.send_to(b"?", (SERVER, 53)).unwrap();
        };
        let (event, ()) = tokio::join!(events.next(PATIENCE), later);
        assert!(event.unwrap().to_string().starts_with("[NEW] udp 17 30 src=10.0.1.2 "));
    });
}

fn lost_events_are_reported() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let mut events = Events::listen(&net.router).unwrap();
        setsockopt(&events, sockopt::RcvBuf, &4096).unwrap();
        let client = udp(&net.client, CLIENT, 5000);
        for port in 1..200 {
            client.send_to(b"?", (SERVER, port)).unwrap();
        }
        let record = events.take().unwrap();
        assert!(record.contains(&Event::Lost), "{} events", record.len());
        assert!(record.len() < 199);
    });
}

fn a_recorder_knows_when() {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    routed(async move |net| {
        let _firewall = masquerade(net);
        let recorder = Recorder::start(&net.router).unwrap();
        let client = udp(&net.client, CLIENT, 5000);
        let begun = now();
        client.send_to(b"?", (SERVER, 53)).unwrap();
        let first_event = async {
            while recorder.count() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, first_event).await.expect("the flow begins");
        let deleted = now();
        assert!(
            Conntrack::of(&net.router).unwrap().delete(&Tuple::udp((CLIENT, 5000), (SERVER, 53))).unwrap()
        );
        // The last event is still in the socket.
        let (heard, more) = recorder.end().unwrap();
        assert!(matches!(heard.as_slice(), [(_, Event::New(_)), (_, Event::Destroy(_))]), "{heard:?}");
        assert!(begun <= heard[0].0 && heard[0].0 < deleted && deleted <= heard[1].0, "{heard:?}");
        assert!(!more);
    });
}

fn an_invalid_packet_is_a_change_of_the_statistics() {
    routed(async |net| {
        let _firewall =
            applicable(Firewall::install(&net.router, &[Rule::drop("invalid").ct_state(CtState::INVALID)]));
        let conntrack = applicable(Conntrack::of(&net.router));
        let before = conntrack.stats().unwrap();
        assert_eq!(before.get(Statistic::Invalid), Some(0));
        let socket = net.client.enter(|| {
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4))
                .unwrap()
        });
        // An unsolicited echo reply.
        let to = std::net::SocketAddrV4::new(SERVER, 0);
        socket.send_to(&[0, 0, 0xff, 0xff, 0, 0, 0, 0], &to.into()).unwrap();

        let changes = Stats::changes(&before, &conntrack.stats().unwrap());
        let text: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["invalid +1"]);
    });
}

fn an_invalid_segment_is_spoken_of() {
    routed(async |net| {
        let _firewall = masquerade(net);
        let remarks = applicable(InvalidLogs::listen(&net.router));
        assert!(InvalidLogs::listen(&net.router).is_err(), "nflog group 0 has one listener");
        let _stream = connected(net, (SERVER, 80));
        assert_eq!(remarks.take().unwrap(), []);

        let socket = net.client.enter(|| {
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::TCP))
                .unwrap()
        });
        // A SYN with a wrong checksum: sequence number 7, five words of headers,
        // window 512.
        let header = [0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 2, 0, 0xde, 0xad, 0, 0];
        socket.send_to(&header, &std::net::SocketAddrV4::new(SERVER, 0).into()).unwrap();
        let said = remarks.take().unwrap();
        let [remark] = &*said else { panic!("{said:?}") };
        assert_eq!(remark.header.to_string(), "10.0.1.2:40000 > 192.0.2.2:80 Flags [S], seq 7");
        assert!(remark.words.starts_with("bad ") && remark.words.ends_with("checksum"), "{remark:?}");
        assert_eq!((remark.length, remarks.take().unwrap()), (0, vec![]));
    });
}

fn exhausted_ports_fail_to_insert() {
    routed(async |net| {
        let rules = [Rule::source_nat("nat", ROUTER_WAN).to_ports(40000)];
        let _firewall = applicable(Firewall::install(&net.router, &rules));
        let conntrack = applicable(Conntrack::of(&net.router));
        let _first = connected(net, (SERVER, 80));
        let before = conntrack.stats().unwrap();
        net.connect((SERVER, 80)).unwrap_err();

        let changes = Stats::changes(&before, &conntrack.stats().unwrap());
        let grown =
            |statistic| changes.iter().find(|change| change.statistic == statistic).map(|change| change.by);
        assert!(grown(Statistic::InsertFailed) >= Some(1), "{changes:?}");
        assert_eq!(grown(Statistic::InsertFailed), grown(Statistic::Drop));
    });
}

fn the_table_of_an_idle_namespace_is_empty() {
    routed(async |net| {
        let conntrack = applicable(Conntrack::of(&net.server));
        assert_eq!(conntrack.entries().unwrap(), Vec::<Entry>::new());
        assert_eq!(conntrack.entry(&Tuple::tcp((CLIENT, 1), (SERVER, 2))).unwrap(), None);
        conntrack.flush().unwrap();
    });
}
