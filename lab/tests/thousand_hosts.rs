//! 1,000 hosts on one bridge, with captures as by default, in a separate process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::network::Network;
use lab::probe::{Answer, Flow, Side};
use lab::tap::Tap;
use lab::topology::Topology;
use lab::wire::now;

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    // The only test: it measures the whole process.
    a_thousand_hosts_take_less_than_100_mb,
];

/// A bridge has at most 1023 ports: net/bridge/br_private.h, BR_MAX_PORTS.
const HOSTS: u32 = 1000;

/// The limit on the resident set of the process, in kB: 100 MB.
const RESIDENT_MAX: u64 = 100_000;

fn a_thousand_hosts_take_less_than_100_mb() {
    alone_async(|| async {
        let network = applicable(Network::build(behind_a_router()).await);
        let tap = Tap::on(network.hosts()).expect("a packet socket for each");
        tap.ready();
        let (first, last) = (network.host("h1"), network.host("h1000"));
        let service = SocketAddr::new(last.address(), 80);
        let mut flow = Flow::open(first, service, last, 80).await.expect("a connection");
        let met = flow.exchange(Side::Client, Duration::from_secs(5)).await.expect("two sockets");
        assert_eq!(met, Answer::Received);
        assert_eq!(tap.end(&network, now()).expect("frames").lost, 0);
    });
    let peak = peak();
    assert!(peak < RESIDENT_MAX, "{HOSTS} hosts made {peak} kB resident, not less than {RESIDENT_MAX} kB");
}

/// Every second link is given from the bridge's end: either end may come first.
fn behind_a_router() -> Topology {
    let begin = Topology::new().bridge("lan").router("router").link("router 10.0.0.1/16", "lan");
    (1..=HOSTS).fold(begin, |topology, n| {
        let (name, address) = (format!("h{n}"), Ipv4Addr::from_bits(0x0a00_0001 + n));
        let (topology, end) = (topology.host(&name), format!("{name} {address}/16"));
        if n % 2 == 1 { topology.link(&end, "lan") } else { topology.link("lan", &end) }
    })
}

/// The peak resident set, in kB: VmHWM of proc_pid_status(5).
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
