//! `faultlab merge`.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs;
use std::path::{Path, PathBuf};

use faultlab_testkit::{Answer, answer};
use serde_json::Value;

use user::{HOSTILE, SHORT, ask, faultlab, is_clean, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    merge_takes_files_that_have_outcomes,
    merge_of_hostile_outcomes_ends_and_is_clean,
    merge_names_missing_and_doubled_shards,
];

/// An outcome as `run --json` prints it.
fn outcome(scenario: &str, kernel: &str) -> Value {
    let arm = |name: &str, cell: &str| {
        serde_json::json!({
            "name": name, "kind": name, "change": "x", "symptom": null, "observations": {"row": cell},
            "unseen": {}, "because": [], "evidence": {},
        })
    };
    serde_json::json!({
        "scenario": scenario, "kernel": kernel, "kernel_id": null, "machine": "vm", "clock": "virtual", "era": "e",
        "verdict": "reproduced", "expected": true, "reason": null, "settings": {}, "symptom": "row",
        "control_is_healthy": true, "arms": [arm("control", "a"), arm("fault", "b")],
        "seconds": {"wall": 1.0, "virtual": 2.0},
    })
}

fn merge(files: &[&Path]) -> Answer {
    answer(faultlab("merge").args(files))
}

fn merge_takes_files_that_have_outcomes() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("good"), format!("{}\n", outcome("s", "6.1"))).expect("a file");
    fs::write(at("empty"), "\n").expect("a file");
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let good = merge(&[&at("good")]);
    assert_eq!(good.status, Some(0), "{}", good.err);
    assert!(good.out.ends_with("1 outcome: 1 reproduced; all as expected\n"), "{}", good.out);

    let empty = merge(&[&at("good"), &at("empty")]);
    assert_eq!((empty.status, empty.out.as_str()), (Some(69), ""));
    assert!(
        empty.err.ends_with("/empty: there is nothing to merge: its run wrote no outcome\n"),
        "{}",
        empty.err
    );
    for (path, what) in
        [(at("fifo"), "a FIFO"), (folder.path().to_owned(), "a directory"), ("/dev/zero".into(), "a device")]
    {
        let Answer { status, out, err } = merge(&[&path]);
        let sentence = format!("it is {what}; merge takes files that `faultlab run --json` wrote");
        let sentence = format!("faultlab: {}: {sentence}\n", path.display());
        assert_eq!((status, out.as_str(), err), (Some(2), "", sentence));
    }
    // A sparse file: one line of 1 TiB.
    fs::File::create(at("zeros")).expect("a file").set_len(1 << 40).expect("a hole");
    let zeros = merge(&[&at("zeros")]);
    assert_eq!(zeros.status, Some(2));
    assert!(zeros.err.ends_with("line 1 is longer than 16 MiB\n"), "{}", zeros.err);
}

fn merge_of_hostile_outcomes_ends_and_is_clean() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("f");
    let mut hostile = outcome(HOSTILE, HOSTILE);
    hostile["expected"] = false.into();
    hostile["reason"] = HOSTILE.into();
    fs::write(&file, hostile.to_string()).expect("a file");
    let Answer { status, out, err } = merge(&[&file]);
    assert_eq!((status, err.as_str()), (Some(1), ""));
    assert!(out.contains("x\\x1b[2J\\nfaultlab: all as expected\\r\\u{9b}1m\\u{202e}"), "{out}");
    is_clean(&out);

    // A name of 5 MB is truncated.
    fs::write(&file, outcome("s", &"k".repeat(5_000_000)).to_string()).expect("a file");
    let long = merge(&[&file]);
    assert_eq!(long.status, Some(0), "{}", long.err);
    assert!(long.out.len() < 1 << 20, "{}", long.out.len());

    let mut many = outcome("s", "6.1");
    many["arms"] = vec![many["arms"][0].clone(); 5000].into();
    fs::write(&file, many.to_string()).expect("a file");
    let many = merge(&[&file]);
    assert_eq!(many.status, Some(2));
    assert!(many.err.contains("5000 arms"), "{}", many.err);
}

fn merge_names_missing_and_doubled_shards() {
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let at = |name: &str| folder.path().join(name);
    for part in ["1", "2", "3"] {
        let line = format!("run {SHORT} tw-recycle-nat --json --shard {part}/3");
        let Answer { status, out, err } = ask(&line);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
        let shard: Value = serde_json::from_str(out.trim()).expect("one line");
        let outcomes = usize::from(part != "3");
        assert_eq!([&shard["shard"]["index"], &shard["shard"]["of"]], [part.parse::<u64>().unwrap(), 3]);
        assert_eq!(
            (&shard["shard"]["outcomes"], shard.get("scenario").is_some()),
            (&outcomes.into(), outcomes == 1)
        );
        fs::write(at(part), out).expect("a file");
    }
    let whole = merge(&[&at("3"), &at("1"), &at("2")]);
    assert_eq!(whole.status, Some(0), "{}", whole.err);
    assert!(whole.out.contains("2 outcomes: ") && whole.out.ends_with("all as expected\n"), "{}", whole.out);
    for (files, sentence) in [
        (vec![at("1")], "shard 2/3 is missing; shard 3/3 is missing"),
        (vec![at("1"), at("2"), at("3"), at("1")], "shard 1/3 is there twice"),
        (vec![at("2"), at("2"), at("3")], "shard 1/3 is missing; shard 2/3 is there twice"),
    ] {
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let Answer { status, out, err } = merge(&files);
        assert_eq!((status, out.as_str(), err), (Some(69), "", format!("faultlab: {sentence}\n")));
    }
}
