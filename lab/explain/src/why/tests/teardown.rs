//! What an arm does after its last observation decided nothing.

use super::*;

/// An arm whose last observation is this late, in milliseconds.
fn observed_until(frames: &[Vec<Frame>], last: u64) -> Recording {
    let mut arm = recording(frames);
    arm.begun = Duration::from_secs(1000);
    arm.capture.last_observation = Some(Duration::from_millis(last));
    arm
}

#[test]
fn a_fin_that_is_dropped_when_the_sockets_close_is_no_evidence() {
    let fin = frames([INSIDE, SERVER], Flags::FIN_ACK, 2, 9, b"", &[on(5113, 0, 1)]);
    let mut arm = observed_until(&[connected(), vec![fin]].concat(), 5100);
    arm.hosts[1].drops = vec![Dropped {
        at: arm.begun + Duration::from_millis(5114),
        reason: Some("NETFILTER_DROP".into()),
        function: "nft_do_chain".into(),
        segment: Some((made::header([INSIDE, SERVER], Flags::FIN_ACK, 2, 9), 0)),
        frame: None,
    }];
    dropped::join(&mut arm);
    assert_eq!(told(&arm, &recording(&connected())), Vec::<String>::new());
    // It came before the last observation.
    arm.capture.last_observation = Some(Duration::from_millis(5200));
    let dropped = ["nat dropped 1 packet: NETFILTER_DROP in nft_do_chain"];
    assert_eq!(told(&arm, &recording(&connected())), dropped);
}

#[test]
fn a_reset_and_an_unanswered_segment_of_the_teardown_are_no_evidence() {
    let data = frames([SERVER, OUTSIDE], Flags::PSH | Flags::ACK, 8, 9, b"hello", &[on(90_000, 2, 1)]);
    let reset = frames([OUTSIDE, SERVER], Flags::RST, 0, 9, b"", &[on(90_002, 1, 2)]);
    let syn = frames(["10.0.9.9:9", SERVER], Flags::SYN, 9, 6000, b"", &[on(90_004, 0, 1)]);
    let all = [connected(), vec![data, reset, syn]].concat();
    let control = recording(&connected());
    assert_eq!(told(&observed_until(&all, 80_000), &control), Vec::<String>::new());
    assert_eq!(told(&observed_until(&all, 99_000), &control).len(), 2);
}

#[test]
fn a_silence_ends_with_the_last_observation() {
    let (arm, mut control) = (observed_until(&connected(), 60_000), recording(&connected()));
    count(&mut control, 2, "TCPKeepAlive", 35);
    let lines = told(&arm, &control);
    assert!(lines[0].starts_with("nothing was sent for 60.0 s, and server"), "{lines:?}");
}
