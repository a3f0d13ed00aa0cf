//! What probes make of the kernel's answers, on the running kernel.

use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::evidence::sockets::{State, sockets};
use lab::network::Network;
use lab::probe::{Connect, Flow, Side, connect, listen};
use lab::topology::Topology;

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_reset_leaves_no_time_wait_and_a_close_takes_the_only_port,
];

const PATIENCE: Duration = Duration::from_secs(5);

fn a_reset_leaves_no_time_wait_and_a_close_takes_the_only_port() {
    alone_async(|| async {
        let topology = Topology::new()
            .hosts(["client", "server"])
            .link("client 10.0.0.1/24", "server 10.0.0.2/24")
            .sysctl("client", "net.ipv4.ip_local_port_range", "32768\t32768");
        let network = applicable(Network::build(topology).await);
        let (client, server) = (network.host("client"), network.host("server"));
        let open = || Flow::open(client, ([10, 0, 0, 2], 80), server, 80);
        let waiting = || {
            let all = sockets(client.namespace()).expect("sock_diag").into_iter();
            all.filter(|socket| socket.state == State::TimeWait).count()
        };

        open().await.expect("a connection").reset(Side::Client).await.expect("the server gets a RST");
        assert_eq!(waiting(), 0);
        open().await.expect("the port is free").close(Side::Client).await.expect("two FINs");
        assert_eq!(waiting(), 1);
        let _listener = listen(server, 80).expect("a listener");
        let met = connect(client, 0, ([10, 0, 0, 2], 80), PATIENCE).await.expect("a socket");
        assert!(matches!(*met, Connect::NoPort), "{}", *met);
    });
}
