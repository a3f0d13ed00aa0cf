//! Measures how long it takes to build and drop a network. Next to each measurement is
//! the floor: a minimal netlink program that creates the same kernel objects.
//!
//! The goal is at most 1.5 times the floor. The kernel frees a dropped network later,
//! in a worker. Each sample waits until the earlier networks are freed; this wait is
//! not measured.

mod floor;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use divan::Bencher;
use lab::isolation::Privilege;
use lab::isolation::isolate;
use lab::machine::confinement::Room;
use lab::machine::confinement::confine;
use lab::network::{Namespace, Network};
use lab::probe::Flow;
use lab::topology::Topology;
use lab::topology::rule::Rule;
use nix::unistd::getppid;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use floor::Floor;

/// The first argument of a process that runs one sample of the groups `process` and
/// `worker`.
const ONCE: &str = "once";

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, ONCE, "lab"] => connect_in_the_lab(&runtime(), nat_network()),
        [_, ONCE, "floor"] => connect_on_the_floor(&nat_network(), &home()),
        [_, ONCE, "worker"] => {
            confine(Privilege::UserNamespace, getppid(), Room::Worker, &[]).expect("a worker");
            connect_in_the_lab(&runtime(), nat_network());
        }
        [_, ONCE, "person"] => {
            confine(Privilege::UserNamespace, getppid(), Room::Person, &[]).expect("a worker");
            connect_in_the_lab(&runtime(), nat_network());
        }
        [_, ONCE, "worker-floor"] => {
            floor::isolate();
            connect_on_the_floor(&nat_network(), &home());
        }
        _ => {
            isolate(Privilege::at_hand(), None).expect("namespaces of its own");
            divan::main();
        }
    }
}

#[divan::bench_group(sample_size = 1, sample_count = 100)]
mod one_namespace {
    use super::{Bencher, Topology};

    fn topology() -> Topology {
        Topology::new().host("host")
    }

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::floor(bencher, &topology());
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::lab(bencher, &topology());
    }
}

#[divan::bench_group(sample_size = 1, sample_count = 100)]
mod nat_network {
    use super::{Bencher, nat_network};

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::floor(bencher, &nat_network());
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::lab(bencher, &nat_network());
    }
}

/// Builds the NAT network, and opens one TCP connection across it.
#[divan::bench_group(sample_size = 1, sample_count = 100)]
mod nat_network_connect {
    use super::{Bencher, connect_in_the_lab, connect_on_the_floor, home, nat_network, runtime, settled};

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        let home = home();
        bencher
            .with_inputs(|| settled(nat_network()))
            .bench_local_values(|topology| connect_on_the_floor(&topology, &home));
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        let runtime = runtime();
        bencher
            .with_inputs(|| settled(nat_network()))
            .bench_local_values(|topology| connect_in_the_lab(&runtime, topology));
    }
}

/// The same in a new process, including its start and exit.
#[divan::bench_group(sample_size = 1, sample_count = 100)]
mod process {
    use super::Bencher;

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::process(bencher, "floor");
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::process(bencher, "lab");
    }
}

/// The same in a new process that first creates its own namespaces: a worker of `run`,
/// and a worker for a shell.
#[divan::bench_group(sample_size = 1, sample_count = 100)]
mod worker {
    use super::Bencher;

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::process(bencher, "worker-floor");
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::process(bencher, "worker");
    }

    #[divan::bench]
    fn lab_with_a_shell(bencher: Bencher<'_, '_>) {
        super::process(bencher, "person");
    }
}

#[divan::bench_group(sample_size = 1, sample_count = 10)]
mod hosts_100 {
    use super::{Bencher, behind_a_router};

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::floor(bencher, &behind_a_router(100));
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::lab(bencher, &behind_a_router(100));
    }
}

#[divan::bench_group(sample_size = 1, sample_count = 3)]
mod hosts_1000 {
    use super::{Bencher, behind_a_router};

    #[divan::bench]
    fn floor(bencher: Bencher<'_, '_>) {
        super::floor(bencher, &behind_a_router(1000));
    }

    #[divan::bench]
    fn lab(bencher: Bencher<'_, '_>) {
        super::lab(bencher, &behind_a_router(1000));
    }
}

fn nat_network() -> Topology {
    Topology::new()
        .host("client")
        .router("router")
        .host("server")
        .link("client 10.0.1.2/24", "router 10.0.1.1/24")
        .link("router 192.0.2.1/24", "server 192.0.2.2/24")
        .rule("router", Rule::masquerade("masquerade", "server"))
}

/// A router and hosts on a bridge, which has at most 1023 ports.
fn behind_a_router(hosts: u32) -> Topology {
    let begin = Topology::new().bridge("lan").router("router").link("router 10.0.0.1/16", "lan");
    (1..=hosts).fold(begin, |topology, n| {
        let (name, address) = (format!("h{n}"), Ipv4Addr::from_bits(0x0a00_0001 + n));
        topology.host(&name).link(&format!("{name} {address}/16"), "lan")
    })
}

fn floor(bencher: Bencher<'_, '_>, topology: &Topology) {
    let home = home();
    bencher
        .with_inputs(|| settled(topology.clone()))
        .bench_local_values(|topology| drop(Floor::build(&topology, &home)));
}

fn lab(bencher: Bencher<'_, '_>, topology: &Topology) {
    let runtime = runtime();
    bencher.with_inputs(|| settled(topology.clone())).bench_local_values(|topology| {
        let build = async { drop(Network::build(topology).await.expect("a network")) };
        LocalSet::new().block_on(&runtime, build);
    });
}

fn process(bencher: Bencher<'_, '_>, of: &str) {
    let this = std::env::current_exe().expect("the name of this program");
    bencher.with_inputs(|| settled(Command::new(&this))).bench_local_values(|mut command| {
        let status = command.args([ONCE, of]).status().expect("a process");
        assert!(status.success(), "{status}");
    });
}

fn connect_in_the_lab(runtime: &Runtime, topology: Topology) {
    let connect = async {
        let network = Network::build(topology).await.expect("a network");
        let (client, server) = (network.host("client"), network.host("server"));
        let service = SocketAddr::new(server.address(), 80);
        Flow::open(client, service, server, 80).await.expect("a connection");
    };
    LocalSet::new().block_on(runtime, connect);
}

fn connect_on_the_floor(topology: &Topology, home: &Namespace) {
    let service = (Ipv4Addr::new(192, 0, 2, 2), 80);
    let network = Floor::build(topology, home);
    let listener = network.namespace(2).enter(|| TcpListener::bind(service)).expect("a listener");
    let _client = network.namespace(0).enter(|| TcpStream::connect(service)).expect("a connection");
    listener.accept().expect("its other side");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The namespace of this thread, to which the floor returns.
fn home() -> Namespace {
    let home = Namespace::current("home").expect("its descriptor");
    // The first `enter` of a thread saves its namespace: do that outside of the
    // samples.
    home.enter(|| {});
    home
}

/// Returns `input` once the kernel has freed all networks dropped before.
///
/// The kernel frees dead namespaces in batches, one batch after another
/// (net/core/net_namespace.c: cleanup_net), and deletes a link into a namespace with
/// it. When two namespaces have been freed one after the other, all batches before them
/// are done.
fn settled<T>(input: T) -> T {
    for _ in 0..2 {
        floor::link_into(&Namespace::new("doomed").expect("a network namespace"), "doomed");
        while nix::net::if_::if_nametoindex("doomed").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    input
}
