//! Standard output, standard error and output files: closed or full ones, and
//! control characters.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::process::Command;

use faultlab_testkit::{Answer, Terminal, answer};

use user::{HOSTILE, SHORT, ask, faultlab, is_clean, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    a_reader_that_goes_away_is_no_error,
    a_full_disk_is_one_sentence,
    a_closed_output_is_an_error,
    what_is_typed_is_said_again_without_control_characters,
    a_tampered_kernel_is_no_kernel_and_is_told_of_without_control_characters,
    outputs_replace_planted_links,
    in_the_c_locale_everything_is_ascii,
];

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

fn in_the_c_locale_everything_is_ascii() {
    let in_c = |line: &str| {
        let mut command = faultlab(line);
        command.env("LC_ALL", "C");
        command
    };
    let story = "show veth-teardown-hang";
    let shown = answer(&mut in_c(story)).out;
    assert!(ask(story).out.contains('\u{2500}') && shown.is_ascii(), "{shown}");
    // JSON is UTF-8 in every locale.
    let json = "show veth-teardown-hang --json";
    assert_eq!(answer(&mut in_c(json)).out, ask(json).out);
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let terminal = Terminal::new();
    let mut command = in_c(&format!("run {SHORT} --ladder --why"));
    let Answer { status, out, .. } = answer(command.stderr(terminal.side()));
    drop(command);
    let progress = terminal.text();
    assert_eq!(status, Some(0));
    assert!(out.contains("  ------") && out.is_ascii(), "{out}");
    assert!(progress.contains(" arms ") && progress.is_ascii(), "{progress}");
    let one = folder.path().join("one.json");
    fs::write(&one, ask(&format!("run {SHORT} --json")).out).expect("a file");
    let merged = answer(in_c("merge").arg(&one)).out;
    assert!(merged.contains("  ------") && merged.is_ascii(), "{merged}");
}
