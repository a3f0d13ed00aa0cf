//! The model against measurements of old kernels, and against their source.

mod recorded;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use recorded::case;

use super::*;
use crate::wire::policy::{Chain, Pass};
use crate::wire::segment::{Flags, Timestamps};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2));
const OTHER_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 3));
/// The peer's timestamp clock when a test starts.
const TICKS: u32 = 1_000_000;

const ACK: Flags = Flags::ACK;
const FIN: Flags = Flags::FIN_ACK;

/// A clock, a model, and the connections that pass it.
struct Lab {
    model: Model,
    now: Duration,
}

/// One connection from the client, whose two ends talk through the model.
#[derive(Clone)]
struct Talk {
    client: SocketAddr,
    server: SocketAddr,
    /// The next sequence number of the client and of the server.
    next: [u32; 2],
    /// The TSval of the client's next segment; `None` without the option.
    tsval: Option<u32>,
}

impl Lab {
    fn new(rule: Rule) -> Self {
        // Start in the middle of a second, so that rounding matters.
        Self { model: Model::new(rule), now: Duration::from_millis(1_000_100) }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn send(&mut self, talk: &mut Talk, from: Side, flags: Flags, length: usize) -> Verdict {
        let (src, dst, me) = match from {
            Side::Client => (talk.client, talk.server, 0),
            Side::Server => (talk.server, talk.client, 1),
        };
        let timestamps = talk.tsval.map(|tsval| match from {
            Side::Client => Timestamps { tsval, tsecr: 0 },
            Side::Server => Timestamps { tsval: 77, tsecr: tsval },
        });
        let seq = talk.next[me];
        let header = Header { src, dst, seq, ack: talk.next[1 - me], flags, window: 512, timestamps };
        let control = [Flags::SYN, Flags::FIN].iter().filter(|bit| flags.contains(**bit)).count();
        talk.next[me] = seq.wrapping_add(u32::try_from(length + control).unwrap());
        let payload = vec![b'x'; length];
        self.model.segment(self.now, from, &Segment { header, payload: &payload })
    }

    /// A SYN alone, from a port of its own.
    fn syn(&mut self, port: u16, tsval: Option<u32>) -> Verdict {
        self.send(&mut Talk::new(port, tsval), Side::Client, Flags::SYN, 0)
    }

    /// A connection that has carried a request and an answer.
    fn open(&mut self, port: u16, tsval: Option<u32>) -> Talk {
        let mut talk = Talk::new(port, tsval);
        self.open_talk(&mut talk);
        talk
    }

    fn open_talk(&mut self, talk: &mut Talk) {
        assert_eq!(self.send(talk, Side::Client, Flags::SYN, 0), Verdict::Pass);
        self.pass(talk, Side::Server, Flags::SYN_ACK, 0);
        self.pass(talk, Side::Client, ACK, 0);
        self.pass(talk, Side::Client, Flags::PSH | ACK, 100);
        self.pass(talk, Side::Server, ACK, 0);
        self.pass(talk, Side::Server, Flags::PSH | ACK, 1000);
        self.pass(talk, Side::Client, ACK, 0);
    }

    fn pass(&mut self, talk: &mut Talk, from: Side, flags: Flags, length: usize) {
        assert_eq!(self.send(talk, from, flags, length), Verdict::Pass);
    }

    /// A connection that the server closed first; its last segment has the TSval
    /// `tsval`.
    fn closed_by_server(&mut self, port: u16, tsval: Option<u32>) -> Talk {
        let mut talk = self.open(port, tsval);
        self.close(
            &mut talk,
            &[(Side::Server, FIN), (Side::Client, ACK), (Side::Client, FIN), (Side::Server, ACK)],
        );
        talk
    }

    fn close(&mut self, talk: &mut Talk, segments: &[(Side, Flags)]) {
        for &(from, flags) in segments {
            self.pass(talk, from, flags, 0);
        }
    }
}

impl Talk {
    fn new(port: u16, tsval: Option<u32>) -> Self {
        // Sequence numbers that wrap around during the connection.
        Self {
            client: SocketAddr::new(CLIENT, port),
            server: SocketAddr::new(SERVER, 80),
            next: [u32::MAX - 50, u32::MAX - 500],
            tsval,
        }
    }
}

#[test]
fn the_retries_of_one_connect_are_dropped_for_60_s() {
    // Seconds after the stamp at which a client of 6.18 sent its SYNs.
    let ladder = [0.3, 1.3, 2.4, 3.4, 4.4, 5.4, 7.5, 11.5, 19.7, 35.8, 68.6];
    let mut lab = Lab::new(Rule::From3_17);
    lab.closed_by_server(41000, Some(TICKS));
    let closed = lab.now;
    let answered = ladder.map(|after| {
        lab.now = closed + Duration::from_secs_f64(after);
        lab.syn(41001, Some(TICKS - 1000)) == Verdict::Pass
    });
    // Drops do not prolong the 60 s.
    assert_eq!(answered, [false, false, false, false, false, false, false, false, false, false, true]);
    assert_eq!(lab.model.counters(), Counters { paws_passive: 10, listen_drops: 10 });
}

#[test]
fn the_stamp_is_per_server_address_from_3_17_on() {
    for (rule, verdict) in [(Rule::UpTo3_16, Verdict::Drop), (Rule::From3_17, Verdict::Pass)] {
        let mut lab = Lab::new(rule);
        lab.closed_by_server(41000, Some(TICKS));
        let mut talk = Talk::new(41001, Some(TICKS - 2));
        talk.server = SocketAddr::new(OTHER_SERVER, 80);
        assert_eq!(lab.send(&mut talk, Side::Client, Flags::SYN, 0), verdict, "{rule:?}");
        // It holds for every port, and for no other peer.
        let mut talk = Talk::new(41002, Some(TICKS - 2));
        talk.server.set_port(443);
        assert_eq!(lab.send(&mut talk, Side::Client, Flags::SYN, 0), Verdict::Drop);
        talk.client.set_ip([10, 0, 0, 3].into());
        assert_eq!(lab.send(&mut talk, Side::Client, Flags::SYN, 0), Verdict::Pass);
    }
}

#[test]
fn recycle_off_answers_at_once_and_keeps_the_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    lab.closed_by_server(41000, Some(TICKS));
    lab.model.set_recycle(false);
    assert_eq!(lab.syn(41001, Some(TICKS - 2)), Verdict::Pass);
    lab.model.set_recycle(true);
    assert_eq!(lab.syn(41002, Some(TICKS - 2)), Verdict::Drop);
}

#[test]
fn a_connection_closed_under_recycle_off_leaves_no_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    lab.model.set_recycle(false);
    lab.closed_by_server(41000, Some(TICKS));
    lab.model.set_recycle(true);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None);
}

#[test]
fn a_connection_without_timestamps_leaves_no_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    lab.closed_by_server(41000, None);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None);
}

#[test]
fn server_timestamps_off_drops_everyone_from_3_17_on_and_nobody_before() {
    for (rule, verdict) in [(Rule::UpTo3_16, Verdict::Pass), (Rule::From3_17, Verdict::Drop)] {
        let mut lab = Lab::new(rule);
        lab.closed_by_server(41000, Some(TICKS));
        lab.model.set_timestamps(false);
        assert_eq!(lab.syn(41001, Some(TICKS + 1000)), verdict, "{rule:?}");
        assert_eq!(lab.syn(41002, Some(TICKS - 1000)), verdict, "{rule:?}");
    }
}

#[test]
fn only_a_newer_connection_closed_by_the_server_renews_the_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    lab.closed_by_server(41000, Some(TICKS));
    let first = lab.model.stamp(lab.now, CLIENT, SERVER);
    lab.wait(Duration::from_secs(30));
    let mut talk = lab.open(41001, Some(TICKS + 500));
    lab.close(
        &mut talk,
        &[(Side::Client, FIN), (Side::Server, ACK), (Side::Server, FIN), (Side::Client, ACK)],
    );
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), first);
    lab.closed_by_server(41002, Some(TICKS + 500));
    let second = Stamp { ts: TICKS + 500, second: lab.now.as_secs() };
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), Some(second));
}

#[test]
fn a_lower_timestamp_never_replaces_a_fresh_one() {
    let mut lab = Lab::new(Rule::From3_17);
    // Both connect before either closes, so that neither SYN is dropped.
    let mut low = lab.open(41000, Some(TICKS - 1000));
    lab.closed_by_server(41001, Some(TICKS));
    let kept = lab.model.stamp(lab.now, CLIENT, SERVER);
    assert_eq!(kept.map(|stamp| stamp.ts), Some(TICKS));
    lab.wait(Duration::from_secs(60));
    let close = [(Side::Server, FIN), (Side::Client, FIN), (Side::Server, ACK)];
    lab.close(&mut low.clone(), &close);
    assert_eq!(lab.model.stamps.values().copied().next(), kept);
    // After more than 60 s it does. The connection above is in TIME_WAIT; this is
    // another one, which was open all the time.
    lab.wait(Duration::from_secs(1));
    low.client.set_port(41002);
    lab.open_talk(&mut low);
    lab.close(&mut low, &close);
    assert_eq!(lab.model.stamps.values().next().map(|stamp| stamp.ts), Some(TICKS - 1000));
}

#[test]
fn every_way_into_time_wait_leaves_a_stamp() {
    const C: Side = Side::Client;
    const S: Side = Side::Server;
    let ways: [(&str, &[(Side, Flags)]); 3] = [
        ("one FIN answers the other", &[(S, FIN), (C, FIN), (S, ACK)]),
        ("the FIN comes before its ACK", &[(S, FIN), (C, ACK), (C, FIN)]),
        ("no FIN of the client's", &[(S, FIN), (C, ACK)]),
    ];
    for (way, segments) in ways {
        let mut lab = Lab::new(Rule::From3_17);
        let mut talk = lab.open(41000, Some(TICKS));
        lab.wait(Duration::from_secs(5));
        talk.tsval = Some(TICKS + 5);
        lab.close(&mut talk, segments);
        let stamp = Stamp { ts: TICKS + 5, second: lab.now.as_secs() };
        assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), Some(stamp), "{way}");
    }
}

#[test]
fn a_simultaneous_close_leaves_a_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.open(41000, Some(TICKS));
    // Two FINs cross: neither acknowledges the other.
    let mut crossing = talk.clone();
    lab.pass(&mut talk, Side::Client, FIN, 0);
    lab.pass(&mut crossing, Side::Server, FIN, 0);
    talk.next[1] = crossing.next[1];
    lab.pass(&mut talk, Side::Server, ACK, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None, "CLOSING is not TIME_WAIT");
    lab.pass(&mut talk, Side::Client, ACK, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER).map(|stamp| stamp.ts), Some(TICKS));
}

#[test]
fn data_after_the_servers_fin_resets_an_orphan_and_leaves_no_stamp() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.open(41000, Some(TICKS));
    lab.pass(&mut talk, Side::Server, FIN, 0);
    lab.pass(&mut talk, Side::Client, FIN, 100);
    lab.pass(&mut talk, Side::Server, Flags::RST, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None);
}

#[test]
fn a_server_that_takes_data_after_its_fin_is_in_time_wait_only_by_the_clients_fin() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.open(41000, Some(TICKS));
    lab.pass(&mut talk, Side::Server, FIN, 0);
    lab.pass(&mut talk, Side::Client, ACK, 100);
    lab.pass(&mut talk, Side::Server, ACK, 0);
    lab.pass(&mut talk, Side::Client, ACK, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None);
    lab.pass(&mut talk, Side::Client, FIN, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER).map(|stamp| stamp.ts), Some(TICKS));
}

#[test]
fn a_segment_from_the_past_does_not_count() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.open(41000, Some(TICKS));
    lab.pass(&mut talk, Side::Server, FIN, 0);
    talk.tsval = Some(TICKS - 2);
    lab.pass(&mut talk, Side::Client, ACK, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), None, "PAWS: the ACK is discarded");
}

#[test]
fn the_stamp_has_the_second_of_the_last_timestamp() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.open(41000, Some(TICKS));
    let heard = lab.now.as_secs();
    lab.wait(Duration::from_secs(10));
    // The ACK has no timestamps option: only earlier timestamps count.
    lab.pass(&mut talk, Side::Server, FIN, 0);
    talk.tsval = None;
    lab.pass(&mut talk, Side::Client, ACK, 0);
    assert_eq!(lab.model.stamp(lab.now, CLIENT, SERVER), Some(Stamp { ts: TICKS, second: heard }));
}

#[test]
fn the_same_port_is_the_servers_business_while_time_wait_lasts() {
    // 3.5 x 200 ms; with a round trip of 50 ms 3.5 x (50 + 200) ms, of 200 ms 3.5 x (200 + 400) ms.
    for (rtt, lifetime) in [(0, 700), (50, 875), (200, 2100)] {
        let mut lab = Lab::new(Rule::From3_17);
        let mut talk = Talk::new(41000, Some(TICKS));
        lab.pass(&mut talk, Side::Client, Flags::SYN, 0);
        lab.pass(&mut talk, Side::Server, Flags::SYN_ACK, 0);
        lab.wait(Duration::from_millis(rtt));
        let close = [(Side::Client, ACK), (Side::Server, FIN), (Side::Client, FIN), (Side::Server, ACK)];
        lab.close(&mut talk, &close);
        lab.wait(Duration::from_millis(lifetime - 1));
        assert_eq!(lab.syn(41000, Some(TICKS - 2)), Verdict::Pass, "{rtt} ms");
        lab.wait(Duration::from_millis(1));
        assert_eq!(lab.syn(41000, Some(TICKS - 2)), Verdict::Drop, "{rtt} ms");
    }
}

#[test]
fn an_ack_prolongs_time_wait_to_60_s() {
    let mut lab = Lab::new(Rule::From3_17);
    let mut talk = lab.closed_by_server(41000, Some(TICKS));
    lab.wait(Duration::from_millis(500));
    lab.pass(&mut talk, Side::Client, ACK, 0);
    lab.wait(Duration::from_secs(59));
    assert_eq!(lab.syn(41000, Some(TICKS - 2)), Verdict::Pass);
}

#[test]
fn a_syn_that_was_never_answered_is_checked_again() {
    let mut lab = Lab::new(Rule::From3_17);
    assert_eq!(lab.syn(41001, Some(TICKS - 1000)), Verdict::Pass);
    lab.closed_by_server(41000, Some(TICKS));
    assert_eq!(lab.syn(41001, Some(TICKS - 1000)), Verdict::Drop);
}

#[test]
fn memory_is_bounded() {
    let mut lab = Lab::new(Rule::From3_17);
    for port in 0..5000 {
        lab.wait(Duration::from_millis(1));
        lab.open(1024 + port, Some(TICKS));
    }
    assert_eq!(lab.model.connections.len(), CONNECTIONS);
    for host in 0..5000_u32 {
        lab.model.remember(
            lab.now,
            (Ipv4Addr::from_bits(host).into(), None),
            Stamp { ts: 1, second: 1000 + u64::from(host) },
        );
    }
    assert!(lab.model.stamps.len() <= STAMPS);
}

/// Both families share the check.
#[test]
fn a_peer_with_an_ipv6_address_has_a_stamp_of_its_own() {
    let mut lab = Lab::new(Rule::From3_17);
    let v6 = |talk: &mut Talk, host: u128| {
        talk.client.set_ip(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host).into());
        talk.server.set_ip(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 0x80).into());
    };
    let mut first = Talk::new(41000, Some(TICKS));
    v6(&mut first, 2);
    lab.open_talk(&mut first);
    lab.close(&mut first, case("server_first").1);
    for (host, verdict) in [(2, Verdict::Drop), (3, Verdict::Pass)] {
        let mut talk = Talk::new(41001, Some(TICKS - 1000));
        v6(&mut talk, host);
        assert_eq!(lab.send(&mut talk, Side::Client, Flags::SYN, 0), verdict, "host {host}");
    }
}

#[test]
fn a_wire_counts_what_the_server_would_have() {
    let mut lab = Lab::new(Rule::From3_17);
    lab.closed_by_server(41000, Some(TICKS));
    assert_eq!(lab.syn(41001, Some(TICKS - 1000)), Verdict::Drop);
    let policy = TwRecycle { model: Rc::new(RefCell::new(lab.model)), server: Direction::There };
    let chain = Chain::new().then(Pass).then(policy);
    assert_eq!(chain.counted(), [("PAWSPassive", 1), ("ListenDrops", 1)]);
}
