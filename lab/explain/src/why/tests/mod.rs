mod hang;
mod teardown;
mod timestamps;

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::dropped;
use crate::hops::made;
use faultlab_model::recording::{Dropped, InvalidLog, Task, Wait};
use faultlab_model::recording::{HostRecording, WireRecording};
use faultlab_net::capture::{Capture, End, Frame};
use faultlab_net::conntrack::{Change, Entry, Event, Statistic, Status, TcpState, Tuple};
use faultlab_net::network::firewall::RuleCounter;

const HOSTS: [&str; 3] = ["client", "nat", "server"];
const INSIDE: &str = "10.0.1.2:41000";
const OUTSIDE: &str = "192.0.2.1:41000";
const SERVER: &str = "192.0.2.2:80";

/// A segment on the link between two neighbours of [`HOSTS`], from `from` to
/// `to`, which it may not reach.
struct On {
    at: u64,
    from: usize,
    to: usize,
    lost: bool,
}

const fn on(at: u64, from: usize, to: usize) -> On {
    On { at, from, to, lost: false }
}

fn frames(way: [&str; 2], flags: Flags, seq: u32, tsval: u32, payload: &[u8], legs: &[On]) -> Vec<Frame> {
    let header = made::header(way, flags, seq, tsval);
    // Each link has two ends, in the order of the hosts.
    let end = |leg: &On, host: usize| 2 * leg.from.min(leg.to) + usize::from(host == leg.from.max(leg.to));
    let crossed = |leg: &On| {
        let arrives = (!leg.lost).then(|| end(leg, leg.to));
        made::crossing(leg.at, Some(end(leg, leg.from)), arrives, header, payload)
    };
    legs.iter().flat_map(crossed).collect()
}

fn recording(frames: &[Vec<Frame>]) -> Recording {
    let end = |host: &str, interface: &str| End {
        host: host.into(),
        interface: interface.into(),
        addresses: match (host, interface) {
            ("nat", "server") => vec![IpAddr::from([192, 0, 2, 1])],
            ("server", _) => vec![IpAddr::from([192, 0, 2, 2])],
            _ => vec![],
        },
        peer: None,
    };
    let ends =
        [("client", "nat"), ("nat", "client"), ("nat", "server"), ("server", "nat")].map(|(h, i)| end(h, i));
    let capture = Capture {
        ends: made::linked(ends.into()),
        frames: frames.concat(),
        until: Duration::from_secs(100),
        ..Capture::default()
    };
    let hosts = HOSTS.map(|name| HostRecording { name: name.into(), ..HostRecording::default() });
    Recording { capture, hosts: hosts.into(), ..Recording::default() }
}

fn count(recording: &mut Recording, host: usize, name: &str, by: i64) {
    recording.hosts[host].counted = vec![(name.to_owned(), by)];
}

fn told(arm: &Recording, control: &Recording) -> Vec<String> {
    Reasons::of(arm, Some(control)).beside(Some(&Reasons::of(control, None)))
}

/// A translated connection, and one segment that the server sends on it.
fn connected() -> Vec<Vec<Frame>> {
    vec![
        frames([INSIDE, SERVER], Flags::SYN, 1, 5000, b"", &[on(0, 0, 1)]),
        frames([OUTSIDE, SERVER], Flags::SYN, 1, 5000, b"", &[on(2, 1, 2)]),
        frames([SERVER, OUTSIDE], Flags::SYN_ACK, 7, 9, b"", &[on(4, 2, 1)]),
        frames([SERVER, INSIDE], Flags::SYN_ACK, 7, 9, b"", &[on(6, 1, 0)]),
    ]
}

/// The server's data arrives untranslated at the NAT, which answers with a RST.
fn stranger() -> Recording {
    let words = frames([SERVER, OUTSIDE], Flags::PSH | Flags::ACK, 8, 9, b"hello", &[on(90_000, 2, 1)]);
    let reset = frames([OUTSIDE, SERVER], Flags::RST, 0, 9, b"", &[on(90_002, 1, 2)]);
    recording(&[connected(), vec![words, reset]].concat())
}

const RESET: &str = "nat answered data 192.0.2.2:80 > 192.0.2.1:41000, seq 8, 5 bytes with a RST; nat did not translate \
                     it to 192.0.2.2:80 > 10.0.1.2:41000 as before";

#[test]
fn a_stranger_is_told_with_conntracks_words() {
    let (mut arm, control) = (stranger(), recording(&connected()));
    assert_eq!(told(&arm, &control), [RESET]);
    let header = Header {
        src: SERVER.parse().unwrap(),
        dst: OUTSIDE.parse().unwrap(),
        seq: 8,
        ack: 0,
        flags: Flags::PSH | Flags::ACK,
        window: 9,
        timestamps: None,
    };
    arm.hosts[1].invalid_logs =
        vec![InvalidLog { header, length: 5, words: "SEQ is over upper bound 7".into() }];
    let said = format!("{RESET}: to its conntrack it was INVALID: SEQ is over upper bound 7");
    assert_eq!(told(&arm, &control), [said]);
}

#[test]
fn what_the_kernel_dropped_is_told_with_its_packet_and_else_by_itself() {
    let drop = |seq, reason: &str, function: &str| {
        let header = Header {
            src: SERVER.parse().unwrap(),
            dst: OUTSIDE.parse().unwrap(),
            seq,
            ack: 0,
            flags: Flags::PSH | Flags::ACK,
            window: 9,
            timestamps: None,
        };
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        Dropped {
            at: Duration::from_secs(91),
            reason,
            function: function.to_owned(),
            segment: Some((header, 5)),
            frame: None,
        }
    };
    let (mut arm, mut control) = (stranger(), recording(&connected()));
    arm.hosts[1].drops = vec![drop(8, "NO_SOCKET", "tcp_v4_rcv")];
    dropped::join(&mut arm);
    let told_of = told(&arm, &control);
    assert_eq!(told_of, [RESET.replace("RST;", "RST (nat dropped it: NO_SOCKET in tcp_v4_rcv);")]);
    // Freed without a reason: it may have been handled.
    arm.hosts[1].drops = vec![drop(8, "", "tcp_v4_rcv")];
    dropped::join(&mut arm);
    assert_eq!(told(&arm, &control), [RESET]);
    arm.hosts[1].drops = vec![drop(8, "NO_SOCKET", "tcp_v4_rcv")];
    // A segment with the same numbers, sent earlier.
    let before = Dropped { at: Duration::from_secs(1), ..drop(8, "NETFILTER_DROP", "nf_hook_slow") };
    arm.hosts[1].drops.insert(0, before);
    dropped::join(&mut arm);
    assert_eq!(told(&arm, &control)[0], told_of[0]);
    // For another packet, as often as in the control, and without a reason.
    arm.hosts[1].drops = vec![
        drop(9, "NETFILTER_DROP", "nf_hook_slow"),
        drop(10, "NETFILTER_DROP", "nf_hook_slow"),
        drop(11, "NO_SOCKET", "tcp_v4_rcv"),
        drop(12, "", "tcp_v4_rcv"),
    ];
    dropped::join(&mut arm);
    control.hosts[1].drops = vec![drop(1, "NO_SOCKET", "tcp_v4_rcv")];
    assert_eq!(told(&arm, &control), [RESET, "nat dropped 2 packets: NETFILTER_DROP in nf_hook_slow"]);
}

#[test]
fn a_forgotten_flow_is_told_with_its_silence_and_its_timeout() {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let entry = Entry {
        original: Tuple::tcp(end(INSIDE), end(SERVER)),
        reply: Tuple::tcp(end(SERVER), end(OUTSIDE)),
        status: Status::CONFIRMED,
        timeout: Some(Duration::from_secs(60)),
        tcp_state: Some(TcpState::CloseWait),
        id: 1,
    };
    let expired = Event::Destroy(Entry { timeout: None, ..entry });
    let control = recording(&connected());
    let told_of = |events: &[(Option<u64>, Event)]| {
        let mut arm = stranger();
        arm.begun = Duration::from_secs(1000);
        let at = |seconds: u64| arm.begun + Duration::from_secs(seconds);
        arm.hosts[1].events = events.iter().map(|(time, event)| (time.map(at), *event)).collect();
        told(&arm, &control)
    };
    let silent = format!("{RESET}: its conntrack had forgotten the flow, which was silent for 90 s");
    let gone = "; the entry of 192.0.2.2:80 > 192.0.2.1:41000 is gone";
    let forgotten = [format!("{silent}, and an entry in CLOSE_WAIT stayed for 60 s{gone}")];
    assert_eq!(told_of(&[(None, Event::New(entry)), (None, expired)]), forgotten);
    // It was reaped when the segment looked it up.
    assert_eq!(told_of(&[(Some(0), Event::New(entry)), (Some(91), expired)]), forgotten);
    // The server's data was picked up as a new flow, and that entry was deleted too.
    let picked_up = Entry {
        original: entry.reply,
        reply: Tuple::tcp(end(OUTSIDE), end(SERVER)),
        timeout: Some(Duration::from_secs(300)),
        ..entry
    };
    let events = [Event::New(entry), expired, Event::New(picked_up), Event::Destroy(picked_up)]
        .map(|event| (None, event));
    assert_eq!(told_of(&events), forgotten);
    // That cannot have been the last timeout.
    let long = Event::New(Entry { timeout: Some(Duration::from_secs(432_000)), ..entry });
    assert_eq!(told_of(&[(None, long), (None, expired)]), [format!("{silent}{gone}")]);
    let deleted = format!(
        "{RESET}: its conntrack had deleted the flow, with 60 s left of its life, which was silent for 90 s{gone}"
    );
    assert_eq!(told_of(&[(None, Event::New(entry)), (None, Event::Destroy(entry))]), [deleted]);
    // Up to 5.10, the event has neither a state nor a timeout: only a silence longer
    // than the last timeout tells that the entry expired.
    let ended = Event::Destroy(Entry { timeout: None, tcp_state: None, ..entry });
    assert_eq!(told_of(&[(None, Event::New(entry)), (None, ended)]), forgotten);
    let gone_early =
        format!("{RESET}: its conntrack no longer had the flow, which was silent for 90 s{gone}");
    assert_eq!(told_of(&[(None, long), (None, ended)]), [gone_early]);
    // It expired later, or the flow got another entry since.
    assert_eq!(told_of(&[(Some(0), Event::New(entry)), (Some(95), expired)]), [RESET]);
    let again = Event::New(Entry { id: 2, ..entry });
    let first = Event::New(entry);
    assert_eq!(told_of(&[(Some(0), first), (Some(70), expired), (Some(80), again)]), [RESET]);
    assert_eq!(told_of(&[(Some(0), first), (Some(70), expired), (Some(95), again)]), forgotten);
    assert_eq!(told_of(&[(None, first), (None, expired), (None, again)]), forgotten);
}

#[test]
fn an_answer_that_comes_too_late_is_told_with_its_delay() {
    let ask = frames([OUTSIDE, SERVER], Flags::PSH | Flags::ACK, 2, 9, b"GET", &[on(1000, 1, 2)]);
    let close = frames([OUTSIDE, SERVER], Flags::FIN_ACK, 5, 9, b"", &[on(2000, 1, 2)]);
    let answer = frames([SERVER, OUTSIDE], Flags::PSH | Flags::ACK, 8, 9, b"OK", &[on(2500, 2, 1)]);
    let reset = frames([OUTSIDE, SERVER], Flags::RST, 0, 9, b"", &[on(2502, 1, 2)]);
    let late = "nat asked 192.0.2.2:80 and closed after 1.0 s; the answer, data 192.0.2.2:80 > 192.0.2.1:41000, seq 8, \
                2 bytes, came 1.5 s after the question and met a RST";
    let asked = told(&recording(&[ask, close, answer, reset]), &recording(&[]));
    assert_eq!(asked, [late]);
}

/// The server's SYN-ACK arrives, twice, and the NAT drops the client's ACK, which
/// acknowledges everything before `ack`.
fn lost_ack(ack: u32) -> Recording {
    let syn_ack = |at| {
        [
            frames([SERVER, OUTSIDE], Flags::SYN_ACK, 7, 9, b"", &[on(at, 2, 1)]),
            frames([SERVER, INSIDE], Flags::SYN_ACK, 7, 9, b"", &[on(at + 2, 1, 0)]),
        ]
    };
    let header = Header { ack, ..made::header([INSIDE, SERVER], Flags::ACK, 2, 9) };
    let answer = vec![made::crossing(10, Some(0), Some(1), header, b"")];
    recording(&[connected(), answer, syn_ack(1000).into(), syn_ack(3000).into()].concat())
}

#[test]
fn the_headline_of_an_answer_that_was_lost_is_where_it_was_lost() {
    let syn_ack =
        "SYN-ACK 192.0.2.2:80 > 192.0.2.1:41000, seq 7, TS val 9, sent 3 times in 3.0 s, got no answer: ";
    let mut arm = lost_ack(8);
    let lost = "client answered with ACK 10.0.1.2:41000 > 192.0.2.2:80, seq 2, but nat took it and did not pass it on";
    let untranslated = "nat did not translate it to 192.0.2.1:41000 > 192.0.2.2:80 as before";
    assert_eq!(told(&arm, &recording(&[])), [format!("{syn_ack}{lost}; {untranslated}")]);
    // Its evidence is the dropping host's, and not that of the host that answered.
    count(&mut arm, 0, "PAWSEstab", 1);
    count(&mut arm, 1, "InDiscards", 1);
    let counted = &told(&arm, &recording(&[]))[0];
    assert_eq!(*counted, format!("{syn_ack}{lost}; nat counted InDiscards +1; {untranslated}"));
    // What does not acknowledge it is no answer to it.
    let other = "it ended at client, as 192.0.2.2:80 > 10.0.1.2:41000";
    assert_eq!(told(&lost_ack(7), &recording(&[])), [format!("{syn_ack}{other}")]);
}

#[test]
fn what_nobody_asked_after_is_told_with_the_silence() {
    let (arm, mut control) = (recording(&connected()), recording(&connected()));
    count(&mut control, 2, "TCPKeepAlive", 35);
    let silent = "nothing was sent for 100 s, and server sent no keepalive probe (TCPKeepAlive +0; +35 in the control)";
    assert_eq!(told(&arm, &control), [silent]);
}

#[test]
fn what_conntrack_and_rules_drop_in_the_control_too_is_no_evidence() {
    let syn = |at| frames(["10.0.9.9:9", SERVER], Flags::SYN, 9, 6000, b"", &[on(at, 0, 1)]);
    let (mut arm, mut control) =
        (recording(&[connected(), vec![syn(2000), syn(3000)]].concat()), recording(&connected()));
    let dropping = |recording: &mut Recording, packets| {
        recording.hosts[1].conntrack = vec![Change { statistic: Statistic::Drop, by: packets }];
        recording.hosts[1].dropped =
            vec![RuleCounter { rule: "policy".into(), packets, bytes: 60 * packets }];
    };
    arm.log = vec!["nf_conntrack: table full, dropping packet".into()];
    control.log = arm.log.clone();
    dropping(&mut arm, 2);
    let unanswered = "SYN 10.0.9.9:9 > 192.0.2.2:80, seq 9, TS val 6000, sent 2 times in 1.0 s, got no answer: nat \
                      took it and did not pass it on";
    let dropped = "; its conntrack counted drop +2; the kernel says: nf_conntrack: table full, dropping packet; its \
                   rule \"policy\" dropped 2 packets";
    assert_eq!(told(&arm, &control), [format!("{unanswered}{dropped}")]);
    dropping(&mut control, 1);
    assert_eq!(told(&arm, &control), [format!("{unanswered}{dropped}")]);
    dropping(&mut control, 2);
    assert_eq!(told(&arm, &control), [unanswered]);
}

#[test]
fn what_the_control_shows_too_is_no_reason() {
    assert_eq!(told(&stranger(), &stranger()), Vec::<String>::new());
    assert_eq!(told(&recording(&connected()), &recording(&[])), Vec::<String>::new());
    let (mut arm, mut control) = (recording(&[]), recording(&[]));
    count(&mut arm, 2, "ListenDrops", 2);
    count(&mut control, 2, "ListenDrops", 2);
    assert_eq!(told(&arm, &control), Vec::<String>::new());
}

proptest! {
    #[test]
    fn any_frames_are_read(
        seen in proptest::collection::vec(
            (any::<u64>(), 0..5_usize, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80)),
            0..5,
        ),
    ) {
        let frame = |(at, end, outgoing, bytes)| Frame {
            at: Duration::from_millis(at), end, outgoing, length: 0, bytes, comment: None, carried: None,
        };
        let arm = recording(&[seen.into_iter().map(frame).collect()]);
        let _ = told(&arm, &recording(&connected()));
    }

    #[test]
    fn any_segments_are_read(
        sent in proptest::collection::vec((0..9000_u64, 0..3_usize, 0..2_usize, any::<u8>(), 0..3_u32), 0..12),
    ) {
        let flags = [Flags::SYN, Flags::ACK, Flags::RST, Flags::FIN_ACK, Flags::SYN_ACK];
        let segment = |&(at, from, way, flag, seq): &(u64, usize, usize, u8, u32)| {
            let to = if from == 1 { 2 * way } else { 1 };
            let ends = if way == 0 { [INSIDE, SERVER] } else { [SERVER, OUTSIDE] };
            let lost = flag & 8 != 0;
            frames(ends, flags[usize::from(flag) % 5], seq, 7, &b"hello"[..usize::from(flag % 6)], &[On { at, from, to, lost }])
        };
        let arm = recording(&sent.iter().map(segment).collect::<Vec<_>>());
        let _ = told(&arm, &recording(&connected()));
    }
}
