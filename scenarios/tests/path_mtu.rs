//! What a host learns about path MTUs, on the running kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::network::Network;
use lab::probe::route;
use lab::topology::{Family, Net, Topology};
use scenarios::actors::path_mtu::{Lookups, NARROW, Router, flood, of_one_bucket};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_host_keeps_what_a_router_tells,
    a_host_keeps_what_an_ipv6_router_tells,
    exceptions_of_one_bucket_push_each_other_out,
];

const BEHIND: &str = "172.16.0.0/12";

fn pod_and_router() -> Topology {
    Topology::new()
        .host("pod")
        .host("router")
        .link("pod 10.0.0.1/24", "router 10.0.0.2/24")
        .route("pod", BEHIND, "10.0.0.2")
}

fn a_host_keeps_what_a_router_tells() {
    alone_async(|| async {
        let network = applicable(Network::build(pod_and_router()).await);
        let router = Router::new(&network, "router", "pod", "pod").expect("a router");
        let lookups = Lookups::new(network.host("pod")).expect("a socket");
        let [told, other] = [1, 2].map(|n| IpAddr::from([172, 16, 0, n]));
        router.tell(told).expect("a frame");
        let mtu = |destination| lookups.path_mtu(destination).expect("a route");
        assert_eq!((mtu(told), mtu(other)), (i32::from(NARROW), 1500));
        flood(&router, &lookups, &[told, other], 8).expect("frames and lookups");
        assert_eq!(mtu(other), i32::from(NARROW));
        route::delete(network.host("pod").namespace(), Net::parse(BEHIND)).expect("the route goes");
        assert!(lookups.path_mtu(told).is_err());
    });
}

fn a_host_keeps_what_an_ipv6_router_tells() {
    const BEHIND_IPV6: &str = "2001:db8:ff::/48";
    alone_async(|| async {
        let topology = Topology::new()
            .hosts(["pod", "router"])
            .link("pod 2001:db8::1/64", "router 2001:db8::2/64")
            .route("pod", BEHIND_IPV6, "2001:db8::2");
        let network = applicable(Network::build(topology).await);
        let router = Router::new(&network, "router", "pod", "pod").unwrap();
        let lookups = Lookups::new(network.host("pod")).unwrap();
        let behind: Vec<_> = Net::parse(BEHIND_IPV6).addresses().take(2).collect();
        let [told, other] = behind[..] else { panic!("two addresses") };
        router.tell(told).unwrap();
        assert_eq!(lookups.path_mtu(told).unwrap(), i32::from(NARROW));
        assert_eq!(lookups.path_mtu(other).unwrap(), 1500);
        assert!(router.tell(Family::V4.unspecified()).is_err());
        route::delete(network.host("pod").namespace(), Net::parse(BEHIND_IPV6)).unwrap();
        assert!(lookups.path_mtu(told).is_err());
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(network.host("pod").address(), IpAddr::V6(address));
    });
}

fn exceptions_of_one_bucket_push_each_other_out() {
    alone_async(|| async {
        let network = applicable(Network::build(pod_and_router()).await);
        let router = Router::new(&network, "router", "pod", "pod").expect("a router");
        let pod = network.host("pod");
        let behind = (1..1 << 20).map(|n| Ipv4Addr::from(0xac10_0000 + n).into());
        let found = of_one_bucket(&router, pod, behind, 16).await.expect("destinations");
        // A bucket has room for ten: max_depth of update_or_create_fnhe is 5 to 9.
        let lookups = Lookups::new(pod).expect("a socket");
        router.tell(found[0]).expect("a frame");
        assert_eq!(lookups.path_mtu(found[0]).expect("a route"), i32::from(NARROW));
        tokio::time::sleep(Duration::from_millis(12)).await;
        found[1..].iter().for_each(|destination| router.tell(*destination).expect("a frame"));
        assert_eq!(lookups.path_mtu(found[15]).expect("a route"), i32::from(NARROW));
        assert_eq!(lookups.path_mtu(found[0]).expect("a route"), 1500);
    });
}
