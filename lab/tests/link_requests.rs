//! Addresses, neighbour entries and policy routes by rtnetlink, on the running kernel.

use std::net::IpAddr;
use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::network::{Namespace, Network};
use lab::probe::address::{AddressState, Dad};
use lab::probe::{Connect, address, connect, link, listen, neighbour, route};
use lab::topology::{Family, Net, Topology};
use tokio::time::{Instant, sleep};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    an_address_comes_and_goes,
    a_duplicate_address_is_detected,
    a_link_that_has_moved_is_set_up_again,
    packets_from_an_address_take_its_own_gateway,
];

const PATIENCE: Duration = Duration::from_secs(2);

fn an_address_comes_and_goes() {
    alone_async(|| async {
        let topology = Topology::new()
            .bridge("lan")
            .hosts(["a", "b"])
            .link("a 10.0.0.1/24", "lan")
            .link("b 10.0.0.2/24", "lan");
        let network = applicable(Network::build(topology).await);
        let (a, b) = (network.host("a"), network.host("b"));
        let (added, index) = (Net::parse("10.0.0.100/24"), b.interface("lan").index);
        let has = || address::of_family(b.namespace(), Family::V4).unwrap().contains(&added.addr());
        address::add(b.namespace(), index, added).unwrap();
        assert!(has());
        let again = address::add(b.namespace(), index, added).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EEXIST));

        // The connect makes an entry for the neighbour, which can be deleted once.
        let _listener = listen(b, 80).unwrap();
        let met = connect(a, 0, ([10, 0, 0, 100], 80), PATIENCE).await.unwrap();
        assert!(matches!(*met, Connect::Connected { .. }), "{}", *met);
        let forget = |address: IpAddr| neighbour::delete(a.namespace(), a.interface("lan").index, address);
        forget(added.addr()).unwrap();
        let unknown = forget([10, 0, 0, 200].into()).unwrap_err();
        assert_eq!(unknown.raw_os_error(), Some(libc::ENOENT));

        address::delete(b.namespace(), index, added).unwrap();
        assert!(!has());
        let gone = address::delete(b.namespace(), index, added).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
}

fn a_duplicate_address_is_detected() {
    alone_async(|| async {
        let topology = Topology::new().hosts(["a", "b"]).link("a 2001:db8::1/64", "b 2001:db8::2/64").sysctl(
            "b",
            "net.ipv6.conf.default.accept_dad",
            1,
        );
        let network = applicable(Network::build(topology).await);
        let b = network.host("b");
        let index = b.interface("a").index;
        let add = |net: &str, dad| address::add_with(b.namespace(), index, Net::parse(net), dad);
        let state = |address: &str| address::state(b.namespace(), address.parse().unwrap()).unwrap();
        assert_eq!(state("2001:db8::3"), AddressState::Absent);
        // b's own, and a's.
        add("2001:db8::3/64", Dad::Default).unwrap();
        add("2001:db8::4/64", Dad::Skipped).unwrap();
        // Without optimistic_dad, the flag is ignored.
        add("2001:db8::5/64", Dad::Optimistic).unwrap();
        add("2001:db8::1/64", Dad::Default).unwrap();
        let all = || ["2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::1"].map(state);
        let tentative = AddressState::Tentative;
        assert_eq!(all(), [tentative, AddressState::Usable, tentative, tentative]);
        let begun = Instant::now();
        while all().contains(&tentative) && begun.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(20)).await;
        }
        let usable = AddressState::Usable;
        assert_eq!(all(), [usable, usable, usable, AddressState::Duplicate]);
        // Random, up to a second, and a probe of one second.
        assert!(begun.elapsed() > Duration::from_millis(800), "{:?}", begun.elapsed());
    });
}

fn a_link_that_has_moved_is_set_up_again() {
    alone_async(|| async {
        let topology = Topology::new().hosts(["a", "b"]).link("a 10.0.0.1/24", "b 10.0.0.2/24");
        let network = applicable(Network::build(topology).await);
        let (a, b) = (network.host("a"), network.host("b"));
        let there = Namespace::new("there").unwrap();
        link::move_to(b.namespace(), "a", &there).unwrap();
        link::set_up(&there, "a").unwrap();
        let net = Net::parse("10.0.0.3/24");
        address::add(&there, b.interface("a").index, net).unwrap();
        let met = connect(a, 0, (net.addr(), 80), PATIENCE).await.unwrap();
        assert!(matches!(*met, Connect::Refused), "{}", *met);
        let none = link::set_up(&there, "b").unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENODEV));
    });
}

fn packets_from_an_address_take_its_own_gateway() {
    alone_async(|| async {
        // The server has no default route: only the rule leads to the client.
        let topology = Topology::new()
            .host("client")
            .router("isp")
            .host("server")
            .link("client 10.0.0.2/24", "isp 10.0.0.1/24")
            .link("isp 192.0.2.1/24", "server 192.0.2.2/24")
            .interfaces("a", "a")
            .link("isp 198.51.100.1/24", "server 198.51.100.2/24")
            .interfaces("b", "b");
        let network = applicable(Network::build(topology).await);
        let (client, server) = (network.host("client"), network.host("server"));
        let _listener = listen(server, 80).unwrap();
        route::add_for_source(server.namespace(), [198, 51, 100, 2], [198, 51, 100, 1], 100).unwrap();
        let on =
            async |address: [u8; 4]| connect(client, 0, (address, 80), PATIENCE).await.unwrap().to_string();
        assert_eq!(on([198, 51, 100, 2]).await, "connected");
        assert_eq!(on([192, 0, 2, 2]).await, "timed out");
        let again = route::add_for_source(server.namespace(), [198, 51, 100, 2], [198, 51, 100, 1], 100);
        assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EEXIST));
    });
}
