//! Any command in fresh namespaces of the running kernel, as a user runs it.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Instant;

use faultlab_testkit::{Answer, PATIENCE, Session, Terminal, answer};
use nix::sys::signal::Signal;
use serde_json::Value;

use user::{HOSTILE, SOON, ask, faultlab, needs_namespaces, refusal};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    a_command_here_has_its_own_output_and_status,
    a_command_here_cannot_change_the_machine,
    a_network_of_its_own_can_be_made,
    what_was_named_stays_in_tmp_and_files_come_back,
    limits_hold_here_too,
    a_terminal_gets_text_and_one_last_line,
    nothing_is_left_of_an_interrupted_command,
    a_wrong_command_line_is_explained,
];

/// `faultlab exec` with these options and this command.
fn exec(options: &str, command: &[&str]) -> Answer {
    answer(faultlab(&format!("exec {options} --")).args(command))
}

fn a_command_here_has_its_own_output_and_status() {
    needs_namespaces();
    let Answer { status, out, err } =
        exec("--env A=1", &["sh", "-c", "echo $A $HOME; echo err >&2; cat; exit 3"]);
    assert_eq!((status, out.as_str(), err.as_str()), (Some(3), "1 /tmp\n", "err\n"));
    let killed = exec("--json", &["sh", "-c", "kill -9 $$"]);
    let run: Value = serde_json::from_str(&killed.out).expect("JSON");
    assert_eq!(killed.status, Some(137));
    assert_eq!(
        (&run["kernel"], &run["signal"], &run["seconds"]["virtual"]),
        (&"here".into(), &9.into(), &Value::Null)
    );
    assert_eq!(exec("", &["no-such-command"]).status, Some(127));
    assert_eq!(exec("", &["/etc/passwd"]).status, Some(126));
}

fn a_command_here_cannot_change_the_machine() {
    needs_namespaces();
    let script = "touch /etc/faultlab-was-here /usr/faultlab-was-here 2>/dev/null; ls -A /tmp; ls /run/user 2>/dev/null; \
                  ls -d /run/out; kill -9 -1";
    let Answer { out, .. } = exec("", &["sh", "-c", script]);
    assert_eq!(out, "/run/out\n");
    assert!(!std::path::Path::new("/etc/faultlab-was-here").exists());
}

fn a_network_of_its_own_can_be_made() {
    needs_namespaces();
    let script = "set -e; ip netns add a; ip link add va netns a type veth peer name vb; ip addr add 10.0.0.1/24 dev vb
        ip link set vb up; ip -n a addr add 10.0.0.2/24 dev va; ip -n a link set va up
        ip netns exec a bash -c ': < /dev/tcp/10.0.0.1/80' 2>&1 | grep -o -m 1 'Connection refused'; ip netns list | cut -d ' ' -f 1";
    let Answer { status, out, err } = exec("", &["sh", "-c", script]);
    assert_eq!((status, out.as_str()), (Some(0), "Connection refused\na\n"), "{err}");
}

fn what_was_named_stays_in_tmp_and_files_come_back() {
    needs_namespaces();
    let home = tempfile::Builder::new().prefix("exec").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let (script, data, other) =
        (home.path().join("a script"), home.path().join("data"), home.path().join("other"));
    let text =
        "#!/bin/sh\ncat \"$1\"; ls; mkdir \"$OUT/a b\"; echo x > \"$OUT/a b/c d\"; ln -s / $OUT/root\n";
    for (path, text, mode) in [(&script, text, 0o755), (&data, "data\n", 0o644), (&other, "other\n", 0o644)] {
        fs::write(path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let out = home.path().join("results");
    let mut command = faultlab(&format!("exec --with {} --out {} --", data.display(), out.display()));
    let Answer { status, out: said, err } = answer(command.arg(&script).arg(&data).current_dir(home.path()));
    assert_eq!((status, said.as_str()), (Some(0), "data\na script\ndata\n"), "{err}");
    assert!(err.starts_with("faultlab: 1 entry of $OUT was not copied: links"), "{err}");
    assert_eq!(fs::read_to_string(out.join("a b/c d")).expect("it came back"), "x\n");
    assert!(!out.join("root").exists());
}

fn limits_hold_here_too() {
    needs_namespaces();
    for (option, sentence) in [
        ("--virtual-timeout 50ms", "after 0.05 s (--virtual-timeout)"),
        ("--timeout 1s", "after 1 s (--timeout)"),
    ] {
        let Answer { status, err, .. } = exec(option, &["sleep", "1000"]);
        assert_eq!(
            (status, err.as_str()),
            (Some(124), format!("faultlab: the command was ended {sentence}\n").as_str())
        );
    }
    let Answer { status, err, .. } = answer(faultlab("exec -- yes").stdout(Stdio::null()));
    assert_eq!(
        (status, err.as_str()),
        (Some(124), "faultlab: the command was ended after 64 MiB of output\n")
    );
    // If the reader of its output ends, the command ends.
    let piped = answer(
        std::process::Command::new("sh")
            .arg("-c")
            .arg("\"$F\" exec -- yes | head -n 1")
            .env("F", user::program()),
    );
    assert_eq!((piped.out.as_str(), piped.err.as_str()), ("y\n", ""));
}

fn a_terminal_gets_text_and_one_last_line() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut command = faultlab("exec --");
    command.args(["sh", "-c", "printf '\\033[31mred\\033[0m\\ttab\\033[2J\\n'; exit 5"]);
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let mut session = Session::start(&mut command);
    terminal.wait_for("\x1b[31mred\x1b[0m");
    terminal.wait_for("tab\\x1b[2J");
    terminal.wait_for(" s, Linux ");
    terminal.wait_for("(here)");
    assert_eq!(session.status(), Some(5));
    // JSON escapes control characters: a reader gets the same bytes.
    let run = exec("--json", &["printf", "%s", HOSTILE]);
    user::is_clean(&run.out);
    let run: Value = serde_json::from_str(&run.out).expect("JSON");
    assert_eq!(run["stdout"], HOSTILE);
}

fn nothing_is_left_of_an_interrupted_command() {
    needs_namespaces();
    for (signal, status) in
        [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)]
    {
        let mut command = faultlab("exec -- sleep 1000");
        let mut session = Session::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let begun = Instant::now();
        while session.named("sleep").is_empty() {
            assert!(begun.elapsed() < PATIENCE, "there are {:?}", session.processes());
            std::thread::yield_now();
        }
        session.signal(signal);
        let interrupted = Instant::now();
        assert_eq!(session.status(), status, "{signal}");
        let waited = session.gone(interrupted);
        assert!(waited < SOON, "it lived for {waited:?}");
    }
}

fn a_wrong_command_line_is_explained() {
    for (line, sentence) in [
        ("exec", "COMMAND"),
        ("exec --virtual-timeout 5fortnights -- true", "a time is seconds, or has units"),
        ("exec --env A -- true", "a variable is NAME=VALUE"),
        ("exec --cpus 2 -- true", "--kernel <ID|FILE>"),
        ("exec --seed 2 -- true", "--kernel <ID|FILE>"),
    ] {
        let refused = refusal(line);
        assert!(refused.contains(sentence), "{line}: {refused}");
    }
    let help = ask("exec --help");
    assert_eq!(help.status, Some(0));
    for taught in ["--with nginx", "$OUT", "Exit status", "byte for byte"] {
        assert!(help.out.contains(taught), "{taught}");
    }
    assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{}", help.out);
}
