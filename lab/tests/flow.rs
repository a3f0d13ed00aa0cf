//! Connections whose ends fail, and the options of listen() and connect(), on the
//! running kernel.

use std::time::Duration;

use faultlab_testkit::{alone_async, applicable};
use lab::evidence::sockets::{State, sockets};
use lab::network::Network;
use lab::probe::tcp::{connect_with, listen_with_backlog, send};
use lab::probe::{Answer, Connect, Flow, Side};
use lab::topology::Topology;
use lab::topology::rule::{Hook, Rule};

faultlab_testkit::tests![faultlab_testkit::isolated::main: a_forgotten_connection_sends_nothing_and_resets, a_backlog_is_the_listeners, options_are_set_before_the_connect];

const PATIENCE: Duration = Duration::from_secs(5);

fn two_hosts() -> Topology {
    Topology::new().host("one").host("other").link("one 10.0.0.1/24", "other 10.0.0.2/24")
}

fn a_forgotten_connection_sends_nothing_and_resets() {
    alone_async(|| async {
        let network = applicable(Network::build(two_hosts()).await);
        let (one, other) = (network.host("one"), network.host("other"));
        let mut flow = Flow::open(one, ([10, 0, 0, 2], 80), other, 80).await.unwrap();
        flow.exchange(Side::Client, PATIENCE).await.unwrap();
        flow.settle().await.unwrap();
        flow.crash(Side::Server).unwrap();
        let quiet = flow.watch(Side::Client, Duration::from_millis(200)).await.unwrap();
        assert_eq!(*quiet, Answer::Nothing);
        let states: Vec<_> = sockets(one.namespace()).unwrap().into_iter().map(|s| s.state).collect();
        assert_eq!(states, [State::Established]);
        // The other kernel knows nothing of it any more.
        assert_eq!(send("one", flow.stream(Side::Client), b"hello").await.unwrap(), Answer::Received);
        assert_eq!(*flow.watch(Side::Client, PATIENCE).await.unwrap(), Answer::Reset);
    });
}

fn a_backlog_is_the_listeners() {
    alone_async(|| async {
        let network = applicable(Network::build(two_hosts()).await);
        let other = network.host("other");
        let _listener = listen_with_backlog(other, 80, 3).unwrap();
        let listeners: Vec<_> = sockets(other.namespace()).unwrap();
        assert_eq!(
            listeners.iter().map(|s| (s.state, s.send_queue)).collect::<Vec<_>>(),
            [(State::Listen, 3)]
        );
    });
}

fn options_are_set_before_the_connect() {
    alone_async(|| async {
        // Since 5.4 (a41e8a88b06e) TCP_USER_TIMEOUT ends a connect().
        let network = two_hosts().rule("other", Rule::drop("silent").on(Hook::Input).tcp());
        let network = applicable(Network::build(network).await);
        let timeout = Some(Duration::from_millis(500));
        let option = |socket: &socket2::Socket| socket.set_tcp_user_timeout(timeout);
        let met = connect_with(network.host("one"), ([10, 0, 0, 2], 80), PATIENCE, option).await.unwrap();
        assert!(matches!(*met, Connect::TimedOut { after } if after < PATIENCE), "{met:?}");
        let refused = connect_with(network.host("one"), ([10, 0, 0, 2], 80), PATIENCE, |_| {
            Err(std::io::Error::from_raw_os_error(libc::EINVAL))
        });
        assert!(refused.await.is_err());
    });
}
