use super::*;

fn behind_a_bridge() -> Topology {
    Topology::new()
        .host("a")
        .bridge("lan")
        .router("gw")
        .host("server")
        .link("a 10.0.0.2/24", "lan")
        .link("gw 10.0.0.1/24", "lan")
        .link("gw 192.0.2.1/24", "server 192.0.2.2/24")
}

#[test]
fn a_host_finds_its_router_behind_a_bridge() {
    let t = behind_a_bridge();
    let via = |node: &str| t.routes_of(t.index(node)).first().map(|r| r.via.to_string());
    assert_eq!(via("a").as_deref(), Some("10.0.0.1"));
    assert_eq!(via("server").as_deref(), Some("192.0.2.1"));
    assert_eq!(via("gw"), None);
}

#[test]
fn a_host_finds_its_router_in_each_family_that_it_has() {
    let t = Topology::new()
        .hosts(["both", "old"])
        .bridge("lan")
        .router("gw")
        .link("both 10.0.0.2/24 2001:db8::2/64", "lan")
        .link("old 10.0.0.3/24", "lan")
        .link("gw 10.0.0.1/24 2001:db8::1/64", "lan");
    let vias = |node: &str| t.routes_of(t.index(node)).iter().map(|r| r.via.to_string()).collect::<Vec<_>>();
    assert_eq!(vias("both"), ["10.0.0.1", "2001:db8::1"]);
    assert_eq!(vias("old"), ["10.0.0.1"]);
    let t = t.route("both", "default", "2001:db8::9");
    assert_eq!(t.routes_of(0).len(), 2);
    assert_eq!(t.routes_of(0)[0].to.to_string(), "::/0");
}

#[test]
fn ipv6_is_on_only_where_it_has_an_address() {
    let value = |t: &Topology, node: &str, key: &str| {
        t.nodes[t.index(node)].sysctls.iter().find(|s| s.key == key).map(|s| s.value.clone())
    };
    let disabled = "net.ipv6.conf.all.disable_ipv6";
    let t = behind_a_bridge();
    let mixed = t.clone().link("a 2001:db8::2/64", "gw 2001:db8::1/64");
    for (node, off) in [("a", "0"), ("gw", "0"), ("server", "1"), ("lan", "1")] {
        assert_eq!(value(&t, node, disabled).as_deref(), Some("1"), "{node}");
        assert_eq!(value(&mixed, node, disabled).as_deref(), Some(off), "{node}");
    }
    assert_eq!(value(&mixed, "gw", FORWARDING[1]).as_deref(), Some("1"));
    assert_eq!((value(&mixed, "a", FORWARDING[1]), value(&t, "gw", FORWARDING[1])), (None, None));
    let off = Topology::new().host("a").host("b").sysctl("a", disabled, 1);
    let off = off.link("a 2001:db8::2/64", "b 2001:db8::1/64");
    assert_eq!(value(&off, "a", disabled).as_deref(), Some("1"));
}

#[test]
fn a_topology_moves_to_ipv6() {
    let t = behind_a_bridge()
        .route("gw", "10.9.0.0/16", "192.0.2.2")
        .rule("gw", Rule::destination_nat("service", ([10, 96, 0, 1], 80), ([192, 0, 2, 2], 80)));
    let v6 = t.clone().in_family(Family::V6);
    assert_eq!(v6.families_of(0), [Family::V6]);
    assert_eq!(v6.routes_of(0)[0].via.to_string(), "2001:db8::a00:1");
    let gw = &v6.nodes[v6.index("gw")];
    assert_eq!(gw.routes[0].to.to_string(), "2001:db8::a09:0/112");
    assert_eq!(gw.rules[0].family(), Some(Family::V6));
    // What is of a family stays in it.
    assert_eq!(v6.clone().in_family(Family::V6), v6);
    assert_eq!(t.clone().in_family(Family::V4), t);
}

#[test]
#[should_panic(expected = "two address families")]
fn a_route_is_of_one_family() {
    let _ = behind_a_bridge().route("a", "2001:db8::/32", "10.0.0.1");
}

#[test]
fn a_later_pin_replaces_an_earlier_one() {
    let t = behind_a_bridge().sysctl("a", "net.ipv4.tcp_timestamps", 0);
    let pins: Vec<_> = t.nodes[0].sysctls.iter().filter(|s| s.key == "net.ipv4.tcp_timestamps").collect();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].value, "0");
}

#[test]
fn a_wired_link_is_found_from_either_end() {
    let t = behind_a_bridge().wire("a 10.0.1.1/24", "server 10.0.1.2/24").interfaces("near", "far");
    let ends = |one, other| t.wired(one, other).map(|ends| ends.map(|end| end.interface.as_str()));
    assert_eq!(ends("a", "server"), Some(["near", "far"]));
    assert_eq!(ends("server", "a"), Some(["far", "near"]));
    assert_eq!(ends("gw", "server"), None);
}
