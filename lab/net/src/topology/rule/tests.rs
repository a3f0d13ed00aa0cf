use super::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [192, 0, 2, 1];
const V6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];

#[test]
fn rules_display_as_nft_prints_them() {
    let rules = [
        Rule::drop("invalid").ct_state(CtState::INVALID),
        Rule::drop("rst").tcp_flags(TcpFlags::RST),
        Rule::count("syn").tcp_flags_of(TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN),
        Rule::accept("known").ct_state(CtState::RELATED | CtState::ESTABLISHED).r#in("lan"),
        Rule::count("range").source(Prefix::new(A, 8)).tcp().source_port(1024..=65535).destination_port(80),
        Rule::notrack("dns").udp().destination_port(53),
        Rule::count("ping").icmp(),
        Rule::count("any").destination_port(53),
        Rule::source_nat("snat", B).to_ports(40000..=40003).choose(Choice::Random),
        Rule::masquerade("masquerade", "wan").to_ports(40000).choose(Choice::FullyRandom),
        Rule::destination_nat("dnat", (B, 80), (A, 8080)),
        Rule::source_nat("snat6", V6).source(Prefix::new(V6, 64)).to_ports(40000..=40003),
        Rule::source_nat("snat6", V6),
        Rule::destination_nat("dnat6", (V6, 80), (V6, 8080)),
        Rule::count("ping6").icmpv6(),
        Rule::reject("no endpoints").destination(A).udp(),
        Rule::destination_nat("half", (B, 53), (A, 53)).udp().one_in(2),
        Rule::clamp_mss("clamp").out("wan"),
    ];
    let text: Vec<_> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "ct state invalid counter drop",
            "tcp flags & rst == rst counter drop",
            "tcp flags syn / syn,ack counter",
            "iifname \"lan\" ct state established,related counter accept",
            "ip saddr 10.0.0.0/8 tcp sport 1024-65535 tcp dport 80 counter",
            "udp dport 53 counter notrack",
            "meta l4proto icmp counter",
            "th dport 53 counter",
            "counter snat to 192.0.2.1:40000-40003 random",
            "oifname \"wan\" counter masquerade to :40000 fully-random",
            "ip daddr 192.0.2.1 tcp dport 80 counter dnat to 10.0.0.1:8080",
            "ip6 saddr 2001:db8::/64 counter snat to [2001:db8::1]:40000-40003",
            "counter snat to 2001:db8::1",
            "ip6 daddr 2001:db8::1 tcp dport 80 counter dnat to [2001:db8::1]:8080",
            "meta l4proto ipv6-icmp counter",
            "ip daddr 10.0.0.1 meta l4proto udp counter reject",
            "ip daddr 192.0.2.1 udp dport 53 numgen inc mod 2 0 counter dnat to 10.0.0.1:53",
            "oifname \"wan\" tcp flags & syn == syn counter tcp option maxseg size set rt mtu",
        ]
    );
}

#[test]
fn a_rule_knows_its_family() {
    assert_eq!(Rule::masquerade("", "wan").tcp().family(), None);
    assert_eq!(Rule::source_nat("", V6).family(), Some(Family::V6));
    assert_eq!(Rule::drop("").icmpv6().family(), Some(Family::V6));
    assert_eq!(Rule::drop("").icmp().destination(B).family(), Some(Family::V4));
}

#[test]
#[should_panic(expected = "rule mixed names two address families")]
fn no_rule_is_of_both_families() {
    let _ = Rule::source_nat("mixed", V6).source(A).family();
}

#[test]
fn a_rule_moves_to_ipv6() {
    let rule = Rule::destination_nat("", (B, 80), (A, 8080)).source(Prefix::new(A, 24));
    assert_eq!(
        rule.clone().of_family(Family::V6).to_string(),
        "ip6 saddr 2001:db8::a00:0/120 ip6 daddr 2001:db8::c000:201 tcp dport 80 counter \
         dnat to [2001:db8::a00:1]:8080"
    );
    assert_eq!(rule.clone().of_family(Family::V4), rule);
    let ping = Rule::drop("").icmp().of_family(Family::V6);
    assert_eq!(ping.family(), Some(Family::V6));
}

#[test]
fn each_action_has_its_hook() {
    assert_eq!(Rule::drop("").hook(), Hook::Forward);
    assert_eq!(Rule::notrack("").hook(), Hook::RawPrerouting);
    assert_eq!(Rule::masquerade("", "wan").hook(), Hook::NatPostrouting);
    assert_eq!(Rule::destination_nat("", (B, 80), (A, 80)).hook(), Hook::NatPrerouting);
    assert_eq!(Rule::count("").on(Hook::Input).hook(), Hook::Input);
}

#[test]
#[should_panic(expected = "rule invalid has no source port")]
fn only_source_nat_chooses_ports() {
    let _ = Rule::drop("invalid").to_ports(1..=2);
}
