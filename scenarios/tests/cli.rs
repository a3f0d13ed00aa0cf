//! The command line, as a user types it.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use faultlab_testkit::{Answer, Terminal, answer, leave_out};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;

use user::{SHORT, SOON, ask, faultlab, in_the_hang, json, keys, needs_namespaces, refusal};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    no_arguments_print_the_help,
    a_typo_finds_its_scenario,
    an_unknown_setting_lists_the_known,
    a_number_out_of_range_names_the_range,
    a_malformed_setting_says_what_it_should_be,
    an_unknown_arm_suggests_the_nearest,
    an_unknown_flag_is_named,
    what_is_mistyped_is_no_bad_commit,
    list_names_every_scenario,
    show_tells_the_story,
    doctor_says_what_can_be_done,
    ctrl_c_ends_a_hang,
    sigterm_ends_a_hang,
    a_reader_that_goes_away_is_no_error,
    a_full_disk_is_one_sentence,
    a_closed_output_is_an_error,
    what_is_typed_is_said_again_without_control_characters,
    a_tampered_kernel_is_no_kernel_and_is_told_of_without_control_characters,
    merge_takes_files_that_have_outcomes,
    merge_of_hostile_outcomes_ends_and_is_clean,
    merge_names_missing_and_doubled_shards,
    outputs_replace_planted_links,
    forbidden_namespaces_are_named,
    completions_and_manual_are_there,
];

macro_rules! snapshot {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

fn no_arguments_print_the_help() {
    snapshot!("help", refusal(""));
    let help = ask("--help");
    assert_eq!((help.status, help.err.as_str()), (Some(0), ""));
    assert_eq!(help.out, refusal(""));
}

fn a_typo_finds_its_scenario() {
    let sentence = "faultlab: no scenario is named \"tw-recyle\"; did you mean tw-recycle-nat?\n";
    for line in ["run tw-recyle", "show tw-recyle", "run tw-recycle-nat tw-recyle"] {
        assert_eq!(refusal(line), sentence, "{line}");
    }
    assert_eq!(
        refusal("run xyzzy"),
        "faultlab: no scenario is named \"xyzzy\"; `faultlab list` names them\n"
    );
}

fn an_unknown_setting_lists_the_known() {
    assert_eq!(
        refusal("run tw-recycle-nat --set recylce=model"),
        "faultlab: no setting is named \"recylce\"; there are family, paws-window, recycle\n"
    );
    assert_eq!(
        refusal("run veth-teardown-hang --set x=1"),
        "faultlab: no setting is named \"x\"; veth-teardown-hang has none\n"
    );
}

fn a_number_out_of_range_names_the_range() {
    snapshot!("out-of-range", refusal("run keepalive-dead-peer --set time=7201"));
    snapshot!("no-number", refusal("run keepalive-dead-peer --set time=soon"));
    snapshot!("no-choice", refusal("run tw-recycle-nat --set recycle=perhaps"));
    snapshot!("jobs", refusal("run --jobs 0"));
}

fn a_malformed_setting_says_what_it_should_be() {
    assert_eq!(
        refusal("run tw-recycle-nat --set recycle"),
        "faultlab: --set takes KEY=VALUE, not \"recycle\"\n"
    );
}

fn an_unknown_arm_suggests_the_nearest() {
    assert_eq!(
        refusal("run --arm recycle-of"),
        "faultlab: no arm is named \"recycle-of\"; did you mean recycle-off?\n"
    );
    assert_eq!(
        refusal("run veth-teardown-hang --arm xyzzy"),
        "faultlab: no arm is named \"xyzzy\"; there are delete-again, delete-the-peer, end-the-holder\n"
    );
}

fn an_unknown_flag_is_named() {
    let err = refusal("run --jsn");
    assert!(err.contains("unexpected argument '--jsn'") && err.contains("'--json'"), "{err}");
    assert!(refusal("rnu").contains("unrecognized subcommand 'rnu'"));
    assert!(refusal("show").contains("<SCENARIO>"));
}

fn what_is_mistyped_is_no_bad_commit() {
    // `git bisect run`: 2 would mark a bad commit; 125 marks one that cannot be
    // tested.
    for line in [
        "run --bisect --jsn",
        "run --jobs 0 --bisect=immune",
        "run --bisect=perhaps",
        "run --without-cause --bisect",
        "run --bisect tw-recyle",
        "rnu --bisect",
    ] {
        let Answer { status, out, err } = ask(line);
        assert_eq!((status, out.as_str()), (Some(125), ""), "{line}: {err}");
        assert_ne!(err, "", "{line}");
    }
    assert_eq!(ask("run --bisect --help").status, Some(0));
    assert_eq!(ask("--version --bisect").status, Some(0));
}

fn names() -> Vec<&'static str> {
    scenarios::CATALOGUE.scenarios.iter().map(|s| s.card.name).collect()
}

fn list_names_every_scenario() {
    let list = json("list --json");
    let listed: Vec<_> = list.iter().map(|s| s["scenario"].as_str().expect("a name")).collect();
    assert_eq!(listed, names());
    for scenario in &list {
        assert_eq!(keys(scenario), ["scenario", "family", "title", "needs", "arms", "eras"]);
    }
    let text = ask("list").out;
    for name in names() {
        assert!(text.lines().any(|l| l == name), "{name} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

fn show_tells_the_story() {
    for name in names() {
        let story = ask(&format!("show {name}"));
        assert_eq!((story.status, story.err.as_str()), (Some(0), ""));
        assert!(story.out.starts_with(name) && !story.out.contains('\x1b'), "{}", story.out);
        let widest = story.out.lines().map(|l| l.chars().count()).max();
        assert!(widest <= Some(100), "{name}: {widest:?} columns");
        let told = json(&format!("show {name} --json"));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["scenario"], name);
        let arms = told[0]["arms"].as_array().expect("a list");
        for arm in arms {
            assert_eq!(keys(arm), ["name", "kind", "change", "edits"]);
            // The edit is printed next to the description.
            let edits = arm["edits"].as_array().expect("a list");
            assert_eq!(edits.is_empty(), arm["kind"] == "control", "{name}: {arm}");
            assert!(story.out.contains(arm["name"].as_str().expect("a name")), "{}", story.out);
        }
    }
    snapshot!("show", ask("show veth-teardown-hang").out);
}

fn doctor_says_what_can_be_done() {
    needs_namespaces();
    let text = ask("doctor").out;
    assert!(text.starts_with("here ") && text.contains("\n  yes "), "{text}");
    let told = json("doctor --json");
    assert_eq!(told[0]["machine"], "here");
    for ability in &told[1..] {
        assert_eq!(keys(ability), ["name", "need", "optional", "missing"]);
    }
    assert!(told.len() > 1);
}

fn ctrl_c_ends_a_hang() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut session = in_the_hang(&mut terminal);
    terminal.interrupt();
    let pressed = Instant::now();
    assert_eq!(session.status(), Some(130));
    let gone = session.gone(pressed);
    assert!(gone < SOON, "{gone:?}");
}

fn sigterm_ends_a_hang() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut session = in_the_hang(&mut terminal);
    session.signal(Signal::SIGTERM);
    let sent = Instant::now();
    assert_eq!(session.status(), Some(143));
    let gone = session.gone(sent);
    assert!(gone < SOON, "{gone:?}");
}

/// Runs the command with a stdout that nobody reads.
fn unread(line: &str) -> Answer {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    answer(faultlab(line).stdout(writer))
}

fn a_reader_that_goes_away_is_no_error() {
    // 128 + SIGPIPE, as a shell reports a program that the signal ended.
    for line in ["list", "list --json", "show veth-teardown-hang", "completions bash", "man"] {
        let Answer { status, err, .. } = unread(line);
        assert_eq!((status, err.as_str()), (Some(141), ""), "{line}");
    }
    needs_namespaces();
    for line in ["doctor".to_owned(), format!("run {SHORT}"), format!("run {SHORT} --json")] {
        let Answer { status, err, .. } = unread(&line);
        assert_eq!((status, err.as_str()), (Some(141), ""), "{line}");
    }
}

fn a_full_disk_is_one_sentence() {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let says_so = |line: &str| {
        let Answer { status, err, .. } = answer(faultlab(line).stdout(full()));
        let sentence = "faultlab: cannot write the results: No space left on device (os error 28)\n";
        assert_eq!((status, err.as_str()), (Some(74), sentence), "{line}");
    };
    for line in ["list", "list --json", "show veth-teardown-hang", "completions zsh", "man"] {
        says_so(line);
    }
    needs_namespaces();
    for line in ["doctor", "doctor --json", &format!("run {SHORT}"), &format!("run {SHORT} --json")] {
        says_so(line);
    }
}

/// Runs the command from a shell that redirects it.
fn redirected(line: &str, how: &str) -> Answer {
    let program = env!("CARGO_BIN_EXE_faultlab");
    answer(Command::new("sh").args(["-c", &format!("exec \"$0\" {line} {how}"), program]))
}

fn a_closed_output_is_an_error() {
    let sentence = "faultlab: cannot write the results: standard output is closed\n";
    for line in ["list", "list --json", "show veth-teardown-hang", "man", "doctor", "run", "run --json"] {
        let Answer { status, out, err } = redirected(line, ">&-");
        assert_eq!((status, out.as_str(), err.as_str()), (Some(74), "", sentence), "{line}");
    }
    assert_eq!(redirected("run --bisect", ">&-").status, Some(125));
    // A /dev/null that was passed accepts all output, even if it is also
    // readable.
    for how in [">/dev/null", "1<>/dev/null"] {
        assert_eq!(redirected("list", how).status, Some(0), "{how}");
    }
    // Without standard error no result is lost, and the status reports the
    // problem.
    let Answer { status, out, .. } = redirected("list", "2>&-");
    assert_eq!((status, out), (Some(0), ask("list").out));
    for how in ["2>&-", "2>/dev/full"] {
        assert_eq!(redirected("run xyzzy", how).status, Some(2), "{how}");
    }
}

/// Sequences that would clear the screen, start a new line, and change the text
/// direction.
const HOSTILE: &str = "x\x1b[2J\nfaultlab: all as expected\r\u{9b}1m\u{202e}";

fn is_clean(text: &str) {
    let raw = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!text.contains(raw), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("faultlab: all")), "{text}");
}

fn what_is_typed_is_said_again_without_control_characters() {
    for words in [
        vec![HOSTILE],
        vec!["run", HOSTILE],
        vec!["run", "--arm", HOSTILE],
        vec!["run", "--set", HOSTILE],
        vec!["run", "--jobs", HOSTILE],
        vec!["run", "--bisect", "--jobs", HOSTILE],
        vec!["run", "--kernel", HOSTILE],
        vec!["show", HOSTILE],
        vec!["merge", HOSTILE],
        vec!["kernel", "add", HOSTILE],
        vec!["kernel", "remove", HOSTILE],
    ] {
        let Answer { status, out, err } = answer(faultlab("").args(&words));
        assert_ne!(status, Some(0), "{words:?}");
        assert_eq!(out, "", "{words:?}");
        assert!(err.contains("[2J"), "{words:?}: {err}");
        is_clean(&err);
    }
}

fn a_tampered_kernel_is_no_kernel_and_is_told_of_without_control_characters() {
    let home = tempfile::tempdir().expect("a directory");
    let entry = home.path().join("faultlab/kernels/debian:sid");
    fs::create_dir_all(&entry).expect("a directory");
    let words = serde_json::json!({
        "id": "debian:sid", "release": HOSTILE, "version": HOSTILE, "source": [HOSTILE], "modules": 1, "sums": HOSTILE,
    });
    fs::write(entry.join("entry.json"), words.to_string()).expect("a file");
    for line in ["kernel list", "kernel list --json"] {
        let Answer { status, out, err } = answer(faultlab(line).env("XDG_CACHE_HOME", home.path()));
        assert_eq!(status, Some(0), "{err}");
        assert!(!out.contains("debian:sid") && err.contains("debian:sid"), "{out}{err}");
        is_clean(&out);
        is_clean(&err);
    }
}

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
    // A line of zeros without an end.
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

fn outputs_replace_planted_links() {
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").expect("a file");
    let to = folder.path().join("to");
    fs::create_dir(&to).expect("a directory");
    let planted =
        ["index.html".to_owned(), format!("{SHORT}.fault.pcapng"), format!("{SHORT}.control.pcapng")];
    for name in &planted {
        symlink(&victim, to.join(name)).expect("a link");
    }
    let line = format!("run {SHORT} --report {0} --pcap {0} --junit {0}/junit.xml", to.display());
    let Answer { status, out, err } = ask(&line);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");
    for name in planted.iter().map(String::as_str).chain(["junit.xml"]) {
        let file = fs::symlink_metadata(to.join(name)).expect("the file");
        assert!(file.is_file() && file.len() > 100, "{name}");
    }
    // No temporary file is left behind.
    let hidden = fs::read_dir(&to).expect("a directory").flatten();
    assert!(hidden.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().starts_with('.')));
}

/// Runs the command as an unprivileged user of a user namespace that may not
/// create others: user.max_user_namespaces is per user namespace.
fn where_namespaces_are_forbidden(command: &mut Command) -> &mut Command {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let maps =
        [("/proc/self/uid_map", format!("1000 {uid} 1")), ("/proc/self/gid_map", format!("1000 {gid} 1"))];
    let forbid = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // Before 3.19, setgroups cannot be denied, and need not be.
        let _ = fs::write("/proc/self/setgroups", "deny");
        for (file, map) in &maps {
            fs::write(file, map)?;
        }
        // exec() by a user other than root drops the capabilities.
        fs::write("/proc/sys/user/max_user_namespaces", "0")
    };
    // SAFETY: the child has one thread, and glibc's malloc works after fork().
    #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
    unsafe {
        command.pre_exec(forbid)
    }
}

fn forbidden_namespaces_are_named() {
    let possible = where_namespaces_are_forbidden(&mut Command::new("true")).status();
    if let Err(error) = possible {
        leave_out(format!("a user namespace to forbid others in: {error}"));
    }
    for line in ["run", "run --json", "doctor", "doctor --json"] {
        let Answer { status, out, err } = answer(where_namespaces_are_forbidden(&mut faultlab(line)));
        assert_eq!((status, out.as_str()), (Some(69), ""), "{line}");
        assert_eq!(
            err,
            "faultlab: a user namespace (user.max_user_namespaces is 0) is missing; \
             run as root, or raise it: sysctl user.max_user_namespaces=10000\n"
        );
    }
}

fn completions_and_manual_are_there() {
    for (line, word) in [
        ("completions bash", "complete -F _faultlab"),
        ("completions zsh", "#compdef faultlab"),
        ("completions fish", "complete -c faultlab"),
        ("man", ".TH faultlab"),
    ] {
        let Answer { status, out, err } = ask(line);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{line}");
        assert!(out.contains(word) && out.contains("doctor"), "{line}: {out}");
    }
}
