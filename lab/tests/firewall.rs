//! nf_tables rules on the running kernel.

use std::io::{Read, Write};
use std::net::Ipv6Addr;

use faultlab_testkit::routed::{CLIENT, PATIENCE, ROUTER_LAN, ROUTER_WAN, Routed, SERVER, routed, udp, v4};
use faultlab_testkit::{applicable, leave_out};
use lab::Error;
use lab::network::firewall::Firewall;
use lab::topology::Family;
use lab::topology::rule::{Choice, CtState, Hook, Prefix, Rule, TcpFlags};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    source_nat_takes_ports_of_the_range,
    masquerade_leaves_lo_alone,
    masquerade_takes_ports_of_the_range,
    destination_nat_leads_to_the_backend,
    output_of_the_host_itself_is_translated,
    invalid_segments_are_counted_and_dropped,
    notrack_hides_a_flow_from_nat,
    a_reject_is_an_icmp_error_for_the_sender,
    every_second_packet_is_one_in_two,
    rules_come_and_go_while_traffic_flows,
    a_bad_rule_leaves_nothing,
    names_must_be_unique,
    nft_prints_what_rules_display,
    nft_prints_what_ipv6_rules_display,
    a_rule_of_another_family_brings_its_table,
];

/// Sends a byte each way and returns the client's address as the server sees
/// it.
fn exchange(
    net: &Routed,
    to: (std::net::Ipv4Addr, u16),
    listener: &std::net::TcpListener,
) -> (std::net::Ipv4Addr, u16) {
    let mut client = net.connect(to).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    v4(peer)
}

fn source_nat_takes_ports_of_the_range() {
    routed(async |net| {
        let rules = [Rule::source_nat("nat", ROUTER_WAN).to_ports(40000..=40003).tcp().out("wan")];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let listener = net.listen(80);

        let (address, port) = exchange(net, (SERVER, 80), &listener);
        assert_eq!(address, ROUTER_WAN);
        assert!((40000..=40003).contains(&port), "{port}");

        // A nat chain sees only the first packet of a flow: one SYN of 60 bytes.
        let counter = firewall.counter("nat").unwrap();
        assert_eq!(counter.to_string(), "nat: packets 1 bytes 60");
    });
}

fn masquerade_leaves_lo_alone() {
    routed(async |net| {
        let rules = [Rule::masquerade("out", "wan").choose(Choice::FullyRandom)];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let listener = net.listen(80);
        assert_eq!(exchange(net, (SERVER, 80), &listener).0, ROUTER_WAN);

        let to_itself = || {
            let listener = std::net::TcpListener::bind((ROUTER_LAN, 81))?;
            let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
            stream.local_addr()
        };
        assert_eq!(v4(net.router.enter(to_itself).unwrap()).0, ROUTER_LAN);
        assert_eq!(firewall.counter("out").unwrap().packets, 1);
    });
}

fn masquerade_takes_ports_of_the_range() {
    routed(async |net| {
        let rules = [Rule::masquerade("out", "wan").to_ports(40000)];
        let _firewall = applicable(Firewall::install(&net.router, &rules));
        let listener = net.listen(80);
        assert_eq!(exchange(net, (SERVER, 80), &listener), (ROUTER_WAN, 40000));
    });
}

fn destination_nat_leads_to_the_backend() {
    routed(async |net| {
        let vip = std::net::Ipv4Addr::new(10, 96, 0, 1);
        let rules = [
            Rule::destination_nat("tcp", (vip, 80), (SERVER, 8080)),
            Rule::destination_nat("udp", (vip, 53), (SERVER, 5353)).udp(),
            Rule::masquerade("out", "wan"),
        ];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let listener = net.listen(8080);
        exchange(net, (vip, 80), &listener);

        let server = udp(&net.server, SERVER, 5353);
        let client = udp(&net.client, CLIENT, 5000);
        client.send_to(b"?", (vip, 53)).unwrap();
        let (_, from) = server.recv_from(&mut [0]).unwrap();
        server.send_to(b"!", from).unwrap();
        assert_eq!(v4(client.recv_from(&mut [0]).unwrap().1), (vip, 53));

        let counters = firewall.counters().unwrap();
        let packets: Vec<_> = counters.iter().map(|c| (c.rule.as_str(), c.packets)).collect();
        assert_eq!(packets, [("tcp", 1), ("udp", 1), ("out", 2)]);
    });
}

fn output_of_the_host_itself_is_translated() {
    routed(async |net| {
        let vip = std::net::Ipv4Addr::new(10, 96, 0, 1);
        let rules = [Rule::destination_nat("service", (vip, 80), (SERVER, 8080)).on(Hook::NatOutput)];
        let _firewall = applicable(Firewall::install(&net.client, &rules));
        let _out = applicable(Firewall::install(&net.router, &[Rule::masquerade("out", "wan")]));
        exchange(net, (vip, 80), &net.listen(8080));
    });
}

fn invalid_segments_are_counted_and_dropped() {
    routed(async |net| {
        let rules = [
            Rule::drop("invalid").ct_state(CtState::INVALID),
            Rule::count("resets").tcp_flags(TcpFlags::RST),
            Rule::count("syn").tcp_flags_of(TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN),
            Rule::count("new").ct_state(CtState::NEW | CtState::ESTABLISHED).source(Prefix::new(CLIENT, 24)),
            Rule::masquerade("out", "wan"),
        ];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let listener = net.listen(80);
        exchange(net, (SERVER, 80), &listener);
        // Both ends closed a socket without unread data: FINs, no RST.
        assert_eq!(firewall.counter("invalid").unwrap().packets, 0);
        assert_eq!(firewall.counter("resets").unwrap().packets, 0);
        assert_eq!(firewall.counter("syn").unwrap().packets, 1);
        assert!(firewall.counter("new").unwrap().packets >= 4);

        // net/netfilter/nf_conntrack_proto_icmp.c: an unsolicited echo reply is
        // invalid.
        send_icmp(net, &[0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        let dropped = firewall.counter("invalid").unwrap();
        assert_eq!(dropped.to_string(), "invalid: packets 1 bytes 28");
    });
}

fn send_icmp(net: &Routed, message: &[u8]) {
    let socket = net.client.enter(|| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4))
            .unwrap()
    });
    let to = std::net::SocketAddrV4::new(SERVER, 0);
    socket.send_to(message, &to.into()).unwrap();
}

fn notrack_hides_a_flow_from_nat() {
    routed(async |net| {
        let rules = [Rule::notrack("dns").udp().destination_port(53), Rule::masquerade("out", "wan")];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let server = udp(&net.server, SERVER, 53);
        let client = udp(&net.client, CLIENT, 5000);
        client.send_to(b"?", (SERVER, 53)).unwrap();
        // Strict reverse path filtering would drop it; a new namespace inherits the
        // host's default.
        let (_, from) = server.recv_from(&mut [0]).unwrap();
        assert_eq!(v4(from), (CLIENT, 5000));
        let packets: Vec<_> = firewall.counters().unwrap().iter().map(|c| c.packets).collect();
        assert_eq!(packets, [1, 0]);
    });
}

fn a_reject_is_an_icmp_error_for_the_sender() {
    routed(async |net| {
        let rules = [Rule::reject("no endpoints").destination(SERVER).udp().destination_port(53)];
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let client = udp(&net.client, CLIENT, 5000);
        client.connect((SERVER, 53)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send(b"?").unwrap();
        let refused = client.recv(&mut [0]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        assert_eq!(firewall.counter("no endpoints").unwrap().packets, 1);
    });
}

fn every_second_packet_is_one_in_two() {
    routed(async |net| {
        let firewall = applicable(Firewall::install(&net.router, &[Rule::count("half").udp().one_in(2)]));
        let server = udp(&net.server, SERVER, 53);
        let client = udp(&net.client, CLIENT, 5000);
        for _ in 0..4 {
            client.send_to(b"?", (SERVER, 53)).unwrap();
            server.recv_from(&mut [0]).unwrap();
        }
        assert_eq!(firewall.counter("half").unwrap().packets, 2);
    });
}

fn rules_come_and_go_while_traffic_flows() {
    routed(async |net| {
        let mut firewall = applicable(Firewall::install(&net.router, &[]));
        assert_eq!(firewall.counters().unwrap(), []);
        firewall.append(Rule::masquerade("out", "wan")).unwrap();
        let listener = net.listen(80);
        exchange(net, (SERVER, 80), &listener);

        firewall.append(Rule::drop("http").tcp().destination_port(80..=81)).unwrap();
        let refused = net.connect((SERVER, 80)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
        assert!(firewall.counter("http").unwrap().packets >= 1);

        firewall.remove("http").unwrap();
        exchange(net, (SERVER, 80), &listener);
        assert_eq!(firewall.rules().len(), 1);
        let error = firewall.remove("http").unwrap_err();
        assert_eq!(error.to_string(), "router: the firewall has no rule http");
    });
}

fn a_bad_rule_leaves_nothing() {
    routed(async |net| {
        // net/netfilter/nft_masq.c: nft_masq_validate, EOPNOTSUPP outside a nat chain.
        let bad = Rule::masquerade("wrong", "wan").on(Hook::Forward);
        let rules = [Rule::drop("invalid").ct_state(CtState::INVALID), bad.clone()];
        let error = Firewall::install(&net.router, &rules).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
        assert!(error.to_string().starts_with("router: nf_tables batch, rule 2 (wrong): "), "{error}");

        // The same table can be created: nothing of it exists.
        let mut firewall = applicable(Firewall::install(&net.router, &rules[..1]));
        let error = firewall.append(bad).unwrap_err();
        assert!(error.to_string().starts_with("router: nf_tables batch, rule 2 (wrong): "), "{error}");
        assert_eq!(firewall.counters().unwrap().len(), 1);

        let again = Firewall::install(&net.router, &[]).unwrap_err();
        assert_eq!(again.errno(), Some(libc::EEXIST), "{again}");
        assert!(again.to_string().starts_with("router: nf_tables batch, table ip faultlab: "), "{again}");
    });
}

fn names_must_be_unique() {
    routed(async |net| {
        let rules = [Rule::drop("a"), Rule::accept("a")];
        let error = Firewall::install(&net.router, &rules).unwrap_err();
        assert!(matches!(error, Error::Lab(_)), "{error}");
    });
}

fn nft_prints_what_rules_display() {
    routed(async |net| {
        let rules = every_kind();
        let firewall = applicable(Firewall::install(&net.router, &rules));
        let text = listed(net);
        for rule in firewall.rules() {
            let line = format!("{rule} comment \"{}\"", rule.name());
            let (_, from_the_counter_on) = line.split_once("counter").expect("every rule counts");
            // nft versions print the flags differently; the unit tests have those of 1.0.6.
            let is_in = |l: &str| match rule.matches().tcp_flags {
                None => l.trim() == line,
                Some(_) => l.ends_with(from_the_counter_on),
            };
            assert!(text.lines().any(is_in), "{line}\nis not in\n{text}");
        }
    });
}

fn nft_prints_what_ipv6_rules_display() {
    routed(async |net| {
        let [v6, other] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<Ipv6Addr>().unwrap());
        let rules = [
            Rule::notrack("1").r#in("lan").udp().destination(v6),
            Rule::destination_nat("2", (v6, 80), (other, 8080)),
            Rule::destination_nat("3", (v6, 53), (other, 53)).udp().on(Hook::NatOutput),
            Rule::source_nat("4", v6).tcp().to_ports(40000..=40003).out("wan"),
            Rule::source_nat("5", v6).source(Prefix::new(other, 64)).choose(Choice::Random),
            Rule::source_nat("6", v6).on(Hook::NatInput),
            Rule::count("7").icmpv6().on(Hook::Output).destination(Prefix::new(v6, 33)),
            // Installed in the tables of both families.
            Rule::masquerade("8", "wan").tcp().to_ports(40000..=40003).choose(Choice::FullyRandom),
            Rule::drop("9").ct_state(CtState::INVALID),
            Rule::count("10").destination_port(53),
        ];
        let families = [Family::V4, Family::V6];
        let mut firewall = applicable(Firewall::install_for(&net.router, &families, &rules));
        let text = listed(net);
        let (ip, ip6) = text.split_once("table ip6 faultlab").expect("two tables");
        for rule in &rules {
            let line = format!("{rule} comment \"{}\"", rule.name());
            let is_in = |table: &str| table.lines().any(|l| l.trim() == line);
            assert!(is_in(ip6), "{line}\nis not in\n{ip6}");
            assert_eq!(is_in(ip), rule.family().is_none(), "{line}\n{ip}");
        }
        // A rule in both tables counts as one rule.
        let names: Vec<_> = firewall.counters().unwrap().into_iter().map(|counter| counter.rule).collect();
        assert_eq!(names, rules.iter().map(Rule::name).collect::<Vec<_>>());
        firewall.remove("9").unwrap();
        assert!(!listed(net).contains("ct state invalid"));
    });
}

/// The output of `nft list` on the router.
fn listed(net: &Routed) -> String {
    let list = || std::process::Command::new("nft").args(["-y", "list", "ruleset"]).output();
    let Ok(listing) = net.router.enter(list) else {
        leave_out("nft is not installed: nothing to compare with");
    };
    String::from_utf8(listing.stdout).unwrap().replace("counter packets 0 bytes 0", "counter")
}

fn a_rule_of_another_family_brings_its_table() {
    routed(async |net| {
        let mut firewall = applicable(Firewall::install(&net.router, &[Rule::count("all")]));
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        applicable(firewall.append(Rule::source_nat("six", v6)));
        let names: Vec<_> = firewall.counters().unwrap().into_iter().map(|counter| counter.rule).collect();
        assert_eq!(names, ["all", "six"]);
        // net/netfilter/nft_masq.c: nft_masq_validate, EOPNOTSUPP outside a nat chain.
        let bad = Rule::source_nat("bad", v6).on(Hook::Forward);
        let error = firewall.append(bad).unwrap_err();
        assert!(error.to_string().starts_with("router: nf_tables batch, rule 3 (bad): "), "{error}");
        firewall.remove("six").unwrap();
        assert_eq!(firewall.counters().unwrap().len(), 1);
    });
}

fn every_kind() -> Vec<Rule> {
    vec![
        Rule::notrack("1").r#in("lan").udp(),
        Rule::notrack("2").on(Hook::RawOutput),
        Rule::destination_nat("3", (SERVER, 80), (CLIENT, 8080)),
        Rule::destination_nat("4", (SERVER, 53), (CLIENT, 53)).udp().on(Hook::NatOutput),
        Rule::source_nat("5", ROUTER_WAN).tcp().to_ports(40000..=40003).out("wan"),
        Rule::source_nat("6", ROUTER_WAN).source(Prefix::new(CLIENT, 24)).choose(Choice::Random),
        Rule::masquerade("7", "wan").tcp().to_ports(40000..=40003).choose(Choice::FullyRandom),
        Rule::masquerade("8", "wan"),
        Rule::source_nat("9", ROUTER_WAN).on(Hook::NatInput),
        Rule::accept("10").on(Hook::Input).ct_state(CtState::ESTABLISHED | CtState::RELATED),
        Rule::drop("11").ct_state(CtState::INVALID),
        Rule::drop("12").tcp_flags(TcpFlags::RST),
        Rule::count("13").tcp_flags_of(TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN),
        Rule::count("14").tcp().source_port(1024..=65535).destination_port(80),
        Rule::count("15").icmp().on(Hook::Output).destination(Prefix::new([10, 0, 0, 0], 9)),
        Rule::count("16").tcp_flags(TcpFlags::SYN | TcpFlags::ACK),
        Rule::count("17").destination_port(53),
        Rule::clamp_mss("18").out("wan"),
    ]
}
