//! `faultlab find` as people type it.

#[allow(dead_code, reason = "nobody interrupts a search")]
mod user;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use faultlab_testkit::{Answer, answer};
use serde_json::Value;

use user::{ask, faultlab, keys, refusal};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    every_fault_is_found_by_its_own_story,
    what_people_reported_finds_its_fault,
    what_is_about_something_else_finds_nothing,
    a_match_says_why_and_what_to_do_next,
    nothing_says_which_words_were_understood,
    a_file_and_standard_input_are_read,
    hostile_text_does_not_reach_the_terminal,
    words_after_list_suggest_find,
];

/// What `find --json` answers.
fn found(text: &str) -> Value {
    let Answer { status, out, err } = answer(faultlab("find --json --").arg(text));
    assert_eq!(err, "", "{text}");
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{text}: {error}: {out}"));
    assert_eq!(keys(&found), ["matches"]);
    let matches = found["matches"].as_array().expect("a list");
    assert_eq!(status, Some(i32::from(matches.is_empty())), "{text}");
    for one in matches {
        let score = one["score"].as_f64().expect("a number");
        assert!(score > 0.0 && score < 1.0, "{one}");
    }
    found
}

fn names(text: &str) -> Vec<String> {
    let found = found(text);
    let matches = found["matches"].as_array().expect("a list");
    matches.iter().map(|one| one["scenario"].as_str().expect("a name").to_owned()).collect()
}

/// The symptom, the title and the issues of a card belong to it more than to any other.
fn every_fault_is_found_by_its_own_story() {
    for scenario in scenarios::CATALOGUE.scenarios {
        let card = &scenario.card;
        for text in [card.name, card.title, card.saw] {
            assert_eq!(names(text).first().map(String::as_str), Some(card.name), "{text}");
        }
    }
}

fn what_people_reported_finds_its_fault() {
    // Other faults may show the same, and come first.
    for (text, faults) in [
        ("request canceled while waiting for connection", &["probe-timeout"][..]),
        ("nf_conntrack: table full, dropping packet", &["conntrack-table-full"]),
        ("conntrak tabel full droping", &["conntrack-table-full"]),
        (
            "waiting for lo to become free",
            &["veth-teardown-hang", "netns-teardown-hang", "route-exception-leak"],
        ),
        (
            "kernel:[12345.678901] unregister_netdevice: waiting for eth0 to become free. Usage count = 3",
            &["veth-teardown-hang", "netns-teardown-hang", "route-exception-leak"],
        ),
        ("the peer reboots, commands hang for 15 minutes", &["retransmission-stall"]),
        ("gRPC idle for more than 15 minutes is reset", &["idle-reset-by-the-middle"]),
        ("DNS lookups take 5 seconds, insert_failed", &["dns-five-seconds"]),
        ("large answers hang, ping works", &["pmtu-black-hole"]),
        ("UDP to a service is black-holed after a pod restart", &["udp-stale-translation"]),
        ("connections die behind a NAT of 300 s", &["keepalive-behind-nat"]),
        ("service is dead for 60 s after a load test", &["tw-recycle-nat"]),
        ("Cannot assign requested address", &["ephemeral-port-exhaustion"]),
        ("INVALID", &["conntrack-delayed-segment-reset", "conntrack-beyond-window-reset"]),
        ("60 s timeout behind NAT", &["tw-recycle-nat", "keepalive-behind-nat"]),
        (
            "port reused in TIME_WAIT, challenge ACK, the RST is lost, connects time out",
            &["time-wait-port-reuse"],
        ),
        ("PLEG is not healthy: pleg was last seen active 12m3.4s ago", &["pod-stuck-terminating"]),
        ("AWS NAT gateway 350 seconds idle timeout", &["keepalive-behind-nat"]),
        ("database connection idle over the weekend, reset by peer", &["conntrack-idle-expiry"]),
        ("connections silently dropped by NAT after 300 s idle", &["keepalive-behind-nat"]),
        (
            "does tcp_timestamps=0 help against tcp_tw_recycle?",
            &["tw-recycle-nat", "tw-recycle-pod-and-node"],
        ),
        ("passive connections rejected because of time stamp", &["tw-recycle-nat"]),
        ("INFO: task ip:1234 blocked for more than 120 seconds. rtnl_lock", &["rtnl-stall"]),
    ] {
        let names = names(text);
        assert!(faults.iter().all(|fault| names.iter().any(|name| name == fault)), "{text}: {names:?}");
    }
}

fn what_is_about_something_else_finds_nothing() {
    for text in [
        "nginx 502 upstream timed out reading response header",
        "upstream prematurely closed connection while reading response header from upstream",
        "segmentation fault in libc",
        "disk full",
        "no space left on device",
        "banana apple zebra",
        "the server is slow",
        "it does not work",
        "too many open files",
        "SSL handshake failed",
        "Out of memory: Killed process 1234 (java) total-vm:1234kB",
        "permission denied while trying to connect to the Docker daemon socket",
        "soft lockup - CPU#3 stuck for 22s",
        "psql: FATAL: password authentication failed for user postgres",
        "unrecognized option",
        "a long time ago in a galaxy far away",
        "",
    ] {
        assert_eq!(names(text), Vec::<String>::new(), "{text}");
    }
}

fn a_match_says_why_and_what_to_do_next() {
    let Answer { status, out, err } = ask("find conntrack table full");
    assert_eq!((status, err.as_str()), (Some(0), ""));
    for part in [
        "conntrack-table-full  0.9",
        "old ones go on [conntrack, table, full]",
        "helped: kube-proxy-max, shorter-timeout, notrack",
        "did not help: more-buckets",
        "symptom: a new connection: \"timed out\", not \"connected\"",
        "next: faultlab show conntrack-table-full; faultlab run conntrack-table-full",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    let found = found("conntrack table full");
    let because = &found["matches"][0]["because"][0];
    assert_eq!(keys(because), ["place", "text", "words"]);
    assert!(because["words"].as_array().expect("a list").contains(&"full".into()), "{because}");
}

fn nothing_says_which_words_were_understood() {
    let Answer { status, out, err } = ask("find disk full");
    assert_eq!((status, err.as_str()), (Some(1), ""));
    assert!(out.starts_with("Nothing here matches.\n  words that scenarios have: full ("), "{out}");
    assert!(out.contains("words that none has: disk\n") && out.contains("`faultlab list`"), "{out}");
}

fn a_file_and_standard_input_are_read() {
    let mut log = "[1.5] usb 1-1: new device\n".repeat(500) + "one\ntwo\nthree\n";
    log.push_str("[600.1] nf_conntrack: nf_conntrack: table full, dropping packet\n");
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("kern.log");
    fs::write(&file, &log).expect("a file");
    let from_file = answer(faultlab("find").arg(&file));
    assert_eq!(from_file.status, Some(0), "{}", from_file.err);
    assert!(from_file.out.starts_with("conntrack-table-full "), "{}", from_file.out);

    let mut child =
        faultlab("find -").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(log.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), from_file.out);

    assert!(refusal("find /no/such/file").contains("/no/such/file: No such file"));
    assert!(refusal("find /dev/zero").contains("/dev/zero: it is neither a file nor a pipe"));
}

fn hostile_text_does_not_reach_the_terminal() {
    let hostile = "\x1b[2Jconntrack table full\u{202e} \u{9b}31m\x07 weird\x1b]0;t\x07";
    for line in ["find", "find --json"] {
        let Answer { out, err, .. } = answer(faultlab(line).arg(hostile));
        let page = out + &err;
        assert!(page.chars().all(|letter| letter == '\n' || lab::text::is_plain(letter)), "{page:?}");
    }
}

fn words_after_list_suggest_find() {
    assert_eq!(
        refusal("list INVALID"),
        "faultlab: list takes no words; `faultlab find INVALID` says which faults they are about\n"
    );
}
