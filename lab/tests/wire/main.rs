//! The wire between two hosts of a real kernel.
//!
//! ```text
//! a 10.0.0.1 eth0 <-veth-> w0 [ wire ] w1 <-veth-> eth0 10.0.0.2 b
//! ```

mod net;

use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use faultlab_testkit::{alone_async, applicable};
use lab::network::{Namespace, Network};
use lab::probe::{connect, listen};
use lab::topology::Topology;
use lab::wire::policy::{
    Chain, Cut, Decisions, Delay, Direction, Discard, Duplicate, Frame, Hold, Pass, Policy,
    ShiftTimestampClock,
};
use lab::wire::segment::{Flags, Header, Macs, Segment};
use lab::wire::tw_recycle::{Counters, Rule, TwRecycle};
use lab::wire::{Fate, Origin, Record, Wire};
use rtnetlink::LinkUnspec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use net::{Net, Tap, write_sysctl};

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    carries_every_byte,
    drops_the_nth,
    holds_until_released,
    duplicates,
    delays,
    shifts_one_timestamp_clock,
    injects,
    cuts_without_a_word,
    a_link_is_carried_by_another_when_a_wire_is_gone,
    plays_an_old_server_with_tw_recycle,
    a_burst_is_not_lost,
    what_is_lost_is_counted,
    an_end_that_is_deleted_is_no_error,
    partial_checksums_are_an_error,
    an_end_that_is_down_is_an_error,
];

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 80;
/// No condition here takes longer, even on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `body` on its own thread, with its own runtime.
fn run<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    alone_async(|| async { timeout(DEADLINE, body()).await.expect("in time") });
}

/// Waits until `condition` holds.
async fn until(name: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {name}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A counter of TcpExt in /proc/net/netstat; zero if the kernel lacks it.
fn tcp_ext(ns: &Namespace, name: &str) -> u64 {
    let netstat = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|n| n == name);
    at.map_or(0, |at| values.split_whitespace().nth(at).unwrap().parse().unwrap())
}

fn has_data(direction: Direction) -> impl FnMut(Direction, &Segment<'_>) -> bool {
    move |its, segment| its == direction && !segment.payload.is_empty()
}

fn data(wire: &Wire) -> Vec<Record> {
    wire.frames().into_iter().filter(|record| record.header.is_some() && record.length > 0).collect()
}

/// Writes to one end, and reads at the other.
async fn says(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    from.write_all(what).await.unwrap();
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, what);
}

fn carries_every_byte() {
    const MIB: usize = 64;
    const TOTAL: usize = MIB << 20;
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Pass);
        let listener = net.listen();
        let (mut client, mut server) = net.connect(&listener).await;
        // A length that is not a multiple of any segment's.
        let pattern: Rc<Vec<u8>> =
            Rc::new((0..65521_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
        let sent = pattern.clone();
        let start = Instant::now();
        spawn_local(async move {
            let mut left = TOTAL;
            while left > 0 {
                let some = left.min(sent.len());
                client.write_all(&sent[..some]).await.unwrap();
                left -= some;
            }
        });
        let mut buffer = vec![0; pattern.len()];
        let mut left = TOTAL;
        while left > 0 {
            let some = left.min(pattern.len());
            server.read_exact(&mut buffer[..some]).await.unwrap();
            assert!(buffer[..some] == pattern[..some], "other bytes within the last {left}");
            left -= some;
        }
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
        let elapsed = start.elapsed();
        assert_eq!(wire.lost().unwrap(), 0);
        let megabits = TOTAL as u128 * 8 / elapsed.as_micros();
        let again = tcp_ext(&net.a, "TCPFastRetrans") + tcp_ext(&net.a, "TCPTimeouts");
        println!("{MIB} MiB at {megabits} Mbit/s, {again} segments sent again");
    });
}

fn drops_the_nth() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Discard::nth(2, has_data(Direction::There)));
        let (mut client, mut server) = net.connect(&net.listen()).await;
        for word in [b"one", b"two", b"six"] {
            says(&mut client, &mut server, word).await;
        }
        let seen: Vec<_> =
            data(&wire).iter().map(|r| (r.header.unwrap().seq, r.fate == Fate::Dropped)).collect();
        let dropped: Vec<_> = seen.iter().filter(|(_, dropped)| *dropped).collect();
        assert_eq!(dropped, [&seen[1]]);
        assert!(seen[2..].contains(&(seen[1].0, false)), "not sent again: {seen:?}");
    });
}

fn holds_until_released() {
    run(|| async {
        let net = Net::new().await;
        let (hold, handle) = Hold::matching(has_data(Direction::There));
        let wire = net.wire(hold);
        let (mut client, mut server) = net.connect(&net.listen()).await;
        client.write_all(b"late").await.unwrap();
        until("a segment to be held", || handle.held() > 0).await;
        assert_eq!(server.try_read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(data(&wire)[0].fate, Fate::Held);
        handle.release();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"late");
        assert_eq!(handle.held(), 0);
        assert!(matches!(data(&wire)[0].fate, Fate::Passed { .. }));
        says(&mut client, &mut server, b"and at once").await;
    });
}

fn duplicates() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Duplicate::matching(has_data(Direction::There)));
        let (mut client, mut server) = net.connect(&net.listen()).await;
        let mut tap = Tap::new(&net.b);
        says(&mut client, &mut server, b"twice").await;
        until("both copies", || data(&wire).len() >= 2).await;
        let origins: Vec<_> = data(&wire)[..2].iter().map(|record| record.origin).collect();
        assert_eq!(origins, [Origin::End, Origin::Lab]);
        let frames: Vec<_> =
            tap.frames().into_iter().filter(|f| !Segment::parse(f).unwrap().payload.is_empty()).collect();
        assert_eq!(frames[0], frames[1]);
    });
}

fn delays() {
    run(|| async {
        const BY: Duration = Duration::from_millis(50);
        let net = Net::new().await;
        let wire = net.wire(Delay::matching(BY, has_data(Direction::Back)));
        let (mut client, mut server) = net.connect(&net.listen()).await;
        let start = Instant::now();
        says(&mut client, &mut server, b"now").await;
        says(&mut server, &mut client, b"later").await;
        assert!(start.elapsed() >= BY);
        let answer = data(&wire).into_iter().find(|record| record.direction == Direction::Back).unwrap();
        let Fate::Passed { at } = answer.fate else { panic!("{answer}") };
        assert!(at >= answer.at + BY, "{answer} at {at:?}");
    });
}

fn shifts_one_timestamp_clock() {
    run(|| async {
        // An hour at 1000 ticks per second, backwards.
        let shift = 0_u32.wrapping_sub(3_600_000);
        let net = Net::new().await;
        let wire = net.wire(ShiftTimestampClock::new(Direction::There, shift));
        let [mut at_a, mut at_b] = [&net.a, &net.b].map(Tap::new);
        let (mut client, mut server) = net.connect(&net.listen()).await;
        let (mut from_a, mut to_b) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            says(&mut client, &mut server, b"question").await;
            says(&mut server, &mut client, b"answer").await;
            // Read in every round: the capacity of a socket buffer varies between
            // kernels.
            from_a.extend(at_a.headers());
            to_b.extend(at_b.headers());
        }
        let syn = |headers: &[Header]| headers.iter().find(|h| h.flags.opens()).unwrap().timestamps.unwrap();
        assert_eq!(syn(&to_b).tsval, syn(&from_a).tsval.wrapping_add(shift));
        assert_eq!(syn(&to_b).tsecr, 0);
        // a receives its own timestamps back.
        let said: Vec<_> =
            from_a.iter().filter(|h| h.src.ip() == A).map(|h| h.timestamps.unwrap().tsval).collect();
        let told: Vec<_> =
            from_a.iter().filter(|h| h.src.ip() == B).map(|h| h.timestamps.unwrap().tsecr).collect();
        assert!(told.len() > 100 && told.iter().all(|tsecr| said.contains(tsecr)), "{told:?}");
        for ns in [&net.a, &net.b] {
            for counter in ["PAWSActive", "PAWSEstab", "TSEcrRejected"] {
                assert_eq!(tcp_ext(ns, counter), 0, "{counter} in {}", ns.name());
            }
        }
        assert_eq!(wire.lost().unwrap(), 0);
    });
}

fn injects() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Pass);
        let mut tap = Tap::new(&net.b);
        let (mut client, mut server) = net.connect(&net.listen()).await;
        says(&mut client, &mut server, b"last words").await;
        let frames = tap.frames();
        let last = frames.iter().rfind(|frame| Segment::parse(frame).unwrap().header.src.ip() == A).unwrap();
        let macs = Macs::of(last).unwrap();
        let Segment { header, payload } = Segment::parse(last).unwrap();
        let seq = header.seq + u32::try_from(payload.len()).unwrap();
        let reset = Segment {
            header: Header { seq, flags: Flags::RST_ACK, timestamps: None, ..header },
            payload: b"",
        };
        wire.inject(Direction::There, reset.frame(macs).unwrap());
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let record = *wire.frames().iter().find(|r| r.origin == Origin::Lab).unwrap();
        assert_eq!(record.header, Some(reset.header));
    });
}

fn a_link_is_carried_by_another_when_a_wire_is_gone() {
    run(|| async {
        let topology = Topology::new().host("a").host("b").wire("a 10.0.0.1/24", "b 10.0.0.2/24");
        let network = applicable(Network::build(topology).await);
        let _listener = listen(network.host("b"), PORT).unwrap();
        let connects = async || {
            let met =
                connect(network.host("a"), 0, SocketAddrV4::new(B, PORT), Duration::from_millis(300)).await;
            met.unwrap().to_string()
        };
        let wire = network.wire("a", "b", Box::new(Discard::matching(|_, _| true))).unwrap();
        assert_eq!(connects().await, "timed out");
        drop(wire);
        assert_eq!(connects().await, "timed out");
        // A new wire, with its ends in the other order. It does not carry frames sent
        // before it existed.
        let wire = network.wire("b", "a", Box::new(Pass)).unwrap();
        assert_eq!(connects().await, "connected");
        let first = wire.frames().first().and_then(|frame| Some((frame.direction, frame.header?.flags)));
        assert_eq!(first, Some((Direction::Back, Flags::SYN)));
    });
}

fn cuts_without_a_word() {
    run(|| async {
        let net = Net::new().await;
        let (cut, handle) = Cut::new();
        let wire = net.wire(cut);
        let (mut client, mut server) = net.connect(&net.listen()).await;
        says(&mut client, &mut server, b"alive").await;
        handle.cut();
        let before = wire.frames().len();
        for stream in [&mut client, &mut server] {
            stream.write_all(b"anyone?").await.unwrap();
        }
        let lost = || wire.frames()[before..].to_vec();
        until("both ends to try", || {
            Direction::BOTH.iter().all(|direction| lost().iter().any(|r| r.direction == *direction))
        })
        .await;
        assert!(lost().iter().all(|record| record.fate == Fate::Dropped));
        for stream in [&client, &server] {
            assert_eq!(stream.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}

/// Shifts the timestamps of connections from or to `port` only.
struct BehindPort {
    port: u16,
    clock: ShiftTimestampClock,
}

impl Policy for BehindPort {
    fn frame(&mut self, now: Duration, frame: Frame, out: &mut Decisions) {
        let header = frame.segment().map(|segment| segment.header);
        match header {
            Some(h) if [h.src.port(), h.dst.port()].contains(&self.port) => self.clock.frame(now, frame, out),
            _ => out.pass(frame),
        }
    }
}

fn plays_an_old_server_with_tw_recycle() {
    run(|| async {
        let net = Net::new().await;
        // All connections of a use one clock; the wire sets those of one port an hour
        // back. Up to 4.9 there is only one clock; from 4.13 on the sysctl is per
        // namespace.
        write_sysctl(&net.a, "net/ipv4/tcp_timestamps", "2");
        let clock = ShiftTimestampClock::new(Direction::There, 0_u32.wrapping_sub(3_600_000));
        let (check, handle) = TwRecycle::new(Rule::From3_17, Direction::There);
        let wire = net.wire(Chain::new().then(BehindPort { port: 41002, clock }).then(check));
        let listener = net.listen();

        let (mut client, server) = net.connect_from(&listener, 41001).await;
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        drop(client);

        let second = net.connect_from(&listener, 41002);
        let let_go = async {
            until("a SYN to be dropped", || handle.counters().paws_passive > 0).await;
            assert_eq!(handle.counters(), Counters { paws_passive: 1, listen_drops: 1 });
            handle.set_recycle(false);
        };
        let ((mut client, mut server), ()) = tokio::join!(second, let_go);
        says(&mut client, &mut server, b"at last").await;
        let syns: Vec<_> = wire
            .frames()
            .into_iter()
            .filter(|r| r.header.is_some_and(|h| h.flags.opens() && h.src.port() == 41002))
            .collect();
        assert!(matches!(
            syns[..],
            [Record { fate: Fate::Dropped, .. }, Record { fate: Fate::Passed { .. }, .. }]
        ));
    });
}

/// Sends `count` datagrams from a to b while the wire does not run.
fn burst(net: &Net, count: usize) {
    let socket = net.a.enter(|| std::net::UdpSocket::bind((A, 0))).unwrap();
    (0..count).for_each(|_| assert_eq!(socket.send_to(b"datagram", (B, 9)).unwrap(), 8));
}

fn datagrams(wire: &Wire) -> usize {
    // 14 + 20 + 8 + 8: Ethernet, IPv4, UDP, the payload.
    wire.frames().iter().filter(|record| record.header.is_none() && record.length == 50).count()
}

fn a_burst_is_not_lost() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Pass);
        burst(&net, 1);
        until("the neighbour to be known", || datagrams(&wire) == 1).await;
        burst(&net, 1500);
        until("the whole burst", || datagrams(&wire) == 1501).await;
        assert_eq!(wire.lost().unwrap(), 0);
    });
}

fn what_is_lost_is_counted() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Pass);
        burst(&net, 1);
        until("the neighbour to be known", || datagrams(&wire) == 1).await;
        burst(&net, 6000);
        let lost = || usize::try_from(wire.lost().unwrap()).unwrap();
        until("every datagram to be carried or counted", || datagrams(&wire) + lost() == 6001).await;
        assert!(lost() > 0);
    });
}

fn an_end_that_is_deleted_is_no_error() {
    run(|| async {
        let net = Net::new().await;
        let wire = net.wire(Pass);
        let (mut client, mut server) = net.connect(&net.listen()).await;
        says(&mut client, &mut server, b"alive").await;
        let index = net.lab.enter(|| nix::net::if_::if_nametoindex("w1")).unwrap();
        net.netlink.link().del(index).execute().await.unwrap();
        client.write_all(b"anyone?").await.unwrap();
        until("a frame that cannot leave", || wire.frames().iter().any(|r| r.fate == Fate::Unsent)).await;
        wire.check().unwrap();
    });
}

fn partial_checksums_are_an_error() {
    run(|| async {
        let net = Net::with_offloads().await;
        let wire = net.wire(Pass);
        let socket = net.a.enter(TcpSocket::new_v4).unwrap();
        spawn_local(socket.connect(SocketAddrV4::new(B, PORT).into()));
        let mut failure = None;
        until("the wire to fail", || {
            failure = wire.check().err();
            failure.is_some()
        })
        .await;
        let failure = failure.unwrap().to_string();
        assert!(
            failure.starts_with("wire a-b, w0 in lab: a frame of 74 bytes has a partial checksum"),
            "{failure}"
        );
    });
}

fn an_end_that_is_down_is_an_error() {
    run(|| async {
        let net = Net::new().await;
        net.netlink.link().set(LinkUnspec::new_with_name("w1").down().build()).execute().await.unwrap();
        let error = Wire::new("a-b", [(&net.lab, "w0"), (&net.lab, "w1")], Box::new(Pass)).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ENETDOWN), "{error}");
    });
}
