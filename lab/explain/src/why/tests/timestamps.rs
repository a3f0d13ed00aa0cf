//! Which timestamps are compared: those of a connection, and with tcp_tw_recycle those
//! of an address.

use super::*;

#[test]
fn a_syn_from_the_past_is_told_with_how_far_and_with_the_counter() {
    let syn = |at| {
        let other = frames(["10.0.9.9:9", SERVER], Flags::SYN, 9, 1000, b"", &[on(at, 0, 1)]);
        [other, frames(["192.0.2.1:9", SERVER], Flags::SYN, 9, 1000, b"", &[on(at + 2, 1, 2)])]
    };
    let all = [connected(), syn(2000).into(), syn(3000).into()].concat();
    let (mut arm, control) = (recording(&all), recording(&connected()));
    count(&mut arm, 2, "PAWSPassive", 2);
    let behind = "SYN 10.0.9.9:9 > 192.0.2.2:80, seq 9, TS val 1000, sent 2 times in 1.0 s, got no answer: it ended \
                  at server, as 192.0.2.1:9 > 192.0.2.2:80; server counted PAWSPassive +2; its TS val 1000 is 4000 \
                  behind 5000, the last from 192.0.2.1 to server, 2.0 s before";
    let meaning = "server counted PAWSPassive +2, SYNs rejected for the last timestamp of their address, or for \
                   having none (tcp_tw_recycle; \
                   tcp_conn_request, up to 3.16 tcp_v4_conn_request)";
    assert_eq!(told(&arm, &control), [behind, meaning]);

    // Lost on a wire, which counts the loss as a kernel would.
    let lost = |at| {
        let wire = [On { lost: true, ..on(at + 2, 1, 2) }];
        [
            frames(["10.0.9.9:9", SERVER], Flags::SYN, 9, 1000, b"", &[on(at, 0, 1)]),
            frames(["192.0.2.1:9", SERVER], Flags::SYN, 9, 1000, b"", &wire),
        ]
    };
    let mut arm = recording(&[connected(), lost(2000).into()].concat());
    arm.wires = vec![WireRecording {
        ends: ["server".into(), "nat".into()],
        counted: vec![("PAWSPassive", 1)],
        ..WireRecording::default()
    }];
    let wire = "SYN 10.0.9.9:9 > 192.0.2.2:80, seq 9, TS val 1000 got no answer: it left nat and was lost on its way to \
                server; the wire counted PAWSPassive +1, as a kernel would; its TS val 1000 is 4000 behind 5000, the \
                last from 192.0.2.1 to server, 2.0 s before";
    assert_eq!(told(&arm, &control), [wire]);
    // As often as in the control.
    let mut control = recording(&connected());
    control.wires = vec![WireRecording {
        counted: vec![("PAWSPassive", 1)],
        ends: arm.wires[0].ends.clone(),
        ..WireRecording::default()
    }];
    let (lost, _) = wire.split_once("; the wire counted").unwrap();
    assert_eq!(told(&arm, &control), [lost]);
}

#[test]
fn a_syn_without_a_timestamp_is_told_after_one_that_had_one() {
    let mut bare = frames(["192.0.2.1:9", SERVER], Flags::SYN, 9, 1000, b"", &[on(2000, 1, 2)]);
    for frame in &mut bare {
        assert!(faultlab_net::wire::segment::remove_timestamps(&mut frame.bytes));
    }
    let mut arm = recording(&[connected(), vec![bare]].concat());
    count(&mut arm, 2, "PAWSPassive", 1);
    let text = "SYN 192.0.2.1:9 > 192.0.2.2:80, seq 9 got no answer: it ended at server; server counted PAWSPassive +1; \
                it came without a TS val, after 5000, the last from 192.0.2.1 to server, 2.0 s before";
    assert_eq!(told(&arm, &recording(&connected()))[0], text);
}

/// An arm with one more SYN, 4000 ticks behind the connection, from this
/// address; and what its server counted.
fn with_old_syn(from: &str, counter: &str) -> Recording {
    let syn = frames([from, SERVER], Flags::SYN, 9, 1000, b"", &[on(2000, 1, 2)]);
    let mut arm = recording(&[connected(), vec![syn]].concat());
    count(&mut arm, 2, counter, 1);
    arm
}

fn is_called_old(arm: &Recording) -> bool {
    told(arm, &recording(&connected())).iter().any(|line| line.contains(" behind "))
}

#[test]
fn the_timestamps_of_two_connections_are_not_compared_without_tcp_tw_recycle() {
    // A full accept queue drops the SYN. From 4.10 on, the other connection of the
    // address has another offset.
    assert!(!is_called_old(&with_old_syn("192.0.2.1:9", "ListenOverflows")));
    // The check of a connection says nothing about other connections.
    assert!(!is_called_old(&with_old_syn("192.0.2.1:9", "PAWSEstab")));
    assert!(is_called_old(&with_old_syn("192.0.2.1:9", "PAWSPassive")));
}

#[test]
fn a_syn_is_compared_with_the_connection_that_had_its_ports() {
    for counter in ["PAWSEstab", "PAWSTimewait"] {
        let lines = told(&with_old_syn(OUTSIDE, counter), &recording(&connected()));
        let old =
            "its TS val 1000 is 4000 behind 5000, the last of 192.0.2.1:41000 > 192.0.2.2:80, 2.0 s before";
        assert!(lines[0].contains(old), "{lines:?}");
    }
    // Nothing was rejected for its timestamp.
    assert!(!is_called_old(&with_old_syn(OUTSIDE, "ListenOverflows")));
}

#[test]
fn tcp_tw_recycle_allows_a_tick_and_forgets_after_a_minute() {
    let syn = |at, tsval| frames(["192.0.2.1:9", SERVER], Flags::SYN, 9, tsval, b"", &[on(at, 1, 2)]);
    for (at, tsval, is_old) in
        [(2000, 4999, false), (2000, 4998, true), (60_000, 4998, true), (61_000, 4998, false)]
    {
        let mut arm = recording(&[connected(), vec![syn(at, tsval)]].concat());
        count(&mut arm, 2, "PAWSPassive", 1);
        assert_eq!(is_called_old(&arm), is_old, "{at} ms, {tsval}");
    }
}

#[test]
fn a_server_without_timestamps_did_not_compare_them() {
    let old = frames(["192.0.2.1:9", SERVER], Flags::SYN, 9, 1000, b"", &[on(2000, 1, 2)]);
    let later = frames(["192.0.2.1:11", SERVER], Flags::SYN, 11, 1000, b"", &[on(4000, 1, 2)]);
    let mut answer = frames([SERVER, "192.0.2.1:11"], Flags::SYN_ACK, 12, 9, b"", &[on(4002, 2, 1)]);
    let why = |answer: &[Frame]| {
        let mut arm = recording(&[connected(), vec![old.clone(), later.clone(), answer.to_vec()]].concat());
        count(&mut arm, 2, "PAWSPassive", 1);
        told(&arm, &recording(&connected())).swap_remove(0)
    };
    let with = why(&answer);
    let compared = "its TS val 1000 is 4000 behind 5000, the last from 192.0.2.1 to server, 2.0 s before";
    assert!(with.ends_with(compared), "{with}");
    for frame in &mut answer {
        assert!(faultlab_net::wire::segment::remove_timestamps(&mut frame.bytes));
    }
    let without = why(&answer);
    let ignored =
        "server does not use timestamps: its next SYN-ACK to a SYN with a TS val, 2.0 s later, has none";
    assert!(without.ends_with(ignored), "{without}");
}
