//! Dropped packets on the running kernel, with the kernel's reasons.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use faultlab_testkit::{alone_async, applicable};
use lab::evidence::drops::Attached;
use lab::network::{Namespace, Network};
use lab::recording::Dropped;
use lab::topology::Topology;
use lab::topology::rule::{Hook, Rule};
use lab::wire::now;
use lab::wire::segment::Flags;

faultlab_testkit::tests![faultlab_testkit::isolated::main: a_refused_syn_has_no_socket, a_rule_drops_and_nobody_else, a_note_is_of_its_namespace];

fn two_hosts() -> Topology {
    Topology::new().host("one").host("other").link("one 10.0.0.1/24", "other 10.0.0.2/24")
}

/// The dropped SYNs to a port.
fn syns(dropped: &[Dropped], port: u16) -> Vec<&Dropped> {
    let is_syn = |d: &&Dropped| d.segment.is_some_and(|(h, _)| h.flags == Flags::SYN && h.dst.port() == port);
    dropped.iter().filter(is_syn).collect()
}

fn a_refused_syn_has_no_socket() {
    alone_async(|| async {
        let drops = applicable(Attached::attach().and_then(Attached::listen));
        let begun = now();
        let network = applicable(Network::build(two_hosts()).await);
        let (one, other) = (network.host("one").namespace(), network.host("other").namespace());
        let refused = one.enter(|| TcpStream::connect((Ipv4Addr::new(10, 0, 0, 2), 81)));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        let dropped = drops.take(other, begun).unwrap();
        let syns = syns(&dropped, 81);
        let [syn] = syns[..] else { panic!("{dropped:?}") };
        assert_eq!((syn.reason.as_deref(), syn.function.as_str()), (Some("NO_SOCKET"), "tcp_v4_rcv"));
        // A record is returned once, and not if it is older than requested.
        assert_eq!(drops.take(other, begun).unwrap(), []);
        one.enter(|| TcpStream::connect((Ipv4Addr::new(10, 0, 0, 2), 81))).unwrap_err();
        assert_eq!(drops.take(other, now()).unwrap(), []);
        assert_eq!(drops.lost().unwrap(), 0);
    });
}

fn a_rule_drops_and_nobody_else() {
    alone_async(|| async {
        let drops = applicable(Attached::attach().and_then(Attached::listen));
        let begun = now();
        let rule = Rule::drop("no 82").on(Hook::Input).tcp();
        let network = applicable(Network::build(two_hosts().rule("other", rule)).await);
        let one = network.host("one").namespace();
        one.enter(|| {
            let to = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 82));
            TcpStream::connect_timeout(&to, std::time::Duration::from_millis(100)).unwrap_err()
        });
        let dropped = drops.take(network.host("other").namespace(), begun).unwrap();
        let syns = syns(&dropped, 82);
        assert!(!syns.is_empty(), "{dropped:?}");
        assert!(syns.iter().all(|d| d.reason.as_deref() == Some("NETFILTER_DROP")), "{syns:?}");
        assert_eq!(drops.take(one, begun).unwrap(), []);
    });
}

fn a_note_is_of_its_namespace() {
    alone_async(|| async {
        let drops = applicable(Attached::attach().and_then(Attached::listen));
        let begun = now();
        let network = applicable(Network::build(two_hosts()).await);
        let (one, other) = (network.host("one").namespace(), network.host("other").namespace());
        let listener = other.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 83))).unwrap();
        let connected = one.enter(|| TcpStream::connect((Ipv4Addr::new(10, 0, 0, 2), 83))).unwrap();
        let empty = applicable(Namespace::new("empty"));
        assert_eq!(syns(&drops.take(other, begun).unwrap(), 83), Vec::<&Dropped>::new());
        assert_eq!(drops.take(&empty, begun).unwrap(), []);
        drop((listener, connected));
    });
}
