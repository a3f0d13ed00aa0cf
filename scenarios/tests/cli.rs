//! The command line, as a user types it.

#[path = "../../lab/tests/common/frame.rs"]
mod frame;
mod user;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use libtest_mimic::Arguments;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;

use frame::{Test, leave_out};
use user::{Answer, SOON, Session, Terminal, answer, ask, faultlab, needs_namespaces, without_evidence};

frame::tests![side_by_side:
    no_arguments_print_the_help,
    a_typo_finds_its_scenario,
    an_unknown_setting_lists_the_known,
    a_number_out_of_range_names_the_range,
    a_malformed_setting_says_what_it_should_be,
    an_unknown_arm_suggests_the_nearest,
    an_unknown_flag_is_named,
    list_names_every_scenario,
    show_tells_the_story,
    doctor_says_what_can_be_done,
    a_run_is_told_in_a_pipe_without_escape_sequences,
    a_run_in_json_has_the_documented_keys,
    a_ladder_fits_a_terminal,
    a_report_needs_nothing_else,
    why_tells_the_reason_of_a_reset,
    why_tells_the_reason_of_a_timeout,
    why_tells_what_a_hang_waits_for,
    who_looks_on_changes_nothing,
    what_is_not_as_expected_is_explained_unasked,
    one_arm_runs_beside_control_and_fault,
    without_its_cause_a_fault_is_not_reproduced,
    a_terminal_has_progress_on_stderr_only,
    a_terminal_has_colour_on_stdout_unless_it_is_unwanted,
    a_shell_in_a_pipe_has_the_hosts_and_passes_its_status_on,
    a_shell_that_cannot_be_is_one_sentence,
    a_shell_has_the_terminal_and_ctrl_c_ends_what_runs_in_it,
    an_exercise_keeps_its_secret,
    an_exercise_tells_a_wrong_remedy_from_a_right_one,
    a_hang_is_solved_by_the_end_of_who_holds_it,
    an_exercise_that_cannot_be_is_one_sentence,
    ctrl_c_ends_a_hang,
    sigterm_ends_a_hang,
    a_reader_that_goes_away_is_no_error,
    a_full_disk_is_one_sentence,
    forbidden_namespaces_are_named,
    completions_and_manual_are_there,
];

fn side_by_side(tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They mostly wait for the kernel's timers.
    arguments.test_threads.get_or_insert(4);
    frame::run(&arguments, tests, None)
}

/// The shortest scenario: no timer of the kernel decides it.
const SHORT: &str = "conntrack-beyond-window-reset";

/// What is said of a wrong command line: status 2, and nothing on stdout.
fn refusal(line: &str) -> String {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, out.as_str()), (Some(2), ""), "{line}: {err}");
    err
}

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
        "faultlab: no setting is named \"recylce\"; there are paws-window, recycle\n"
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

/// Every line of stdout as JSON.
fn json(line: &str) -> Vec<Value> {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{line}");
    out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}"))).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
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
            assert_eq!(keys(arm), ["name", "kind", "change"]);
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

fn a_run_is_told_in_a_pipe_without_escape_sequences() {
    needs_namespaces();
    let Answer { status, out, err } = ask(&format!("run {SHORT}"));
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with(&format!("{SHORT}  reproduced, as expected\n")), "{out}");
    assert!(out.ends_with("1 reproduced; all as expected\n"), "{out}");
    assert!(!out.contains('\x1b'), "{out:?}");
}

fn a_run_in_json_has_the_documented_keys() {
    needs_namespaces();
    let outcomes = json(&format!("run {SHORT} --json"));
    let [outcome] = outcomes.as_slice() else { panic!("{} lines", outcomes.len()) };
    for key in
        ["scenario", "kernel", "machine", "clock", "era", "verdict", "expected", "reason", "arms", "seconds"]
    {
        assert!(keys(outcome).contains(&key), "{key} is not in {:?}", keys(outcome));
    }
    assert_eq!(outcome["scenario"], SHORT);
    assert_eq!(outcome["machine"], "here");
    assert_eq!(outcome["clock"], "real");
    assert_eq!(outcome["verdict"], "reproduced");
    assert_eq!(outcome["expected"], true);
    assert_eq!(outcome["reason"], Value::Null);
    for arm in outcome["arms"].as_array().expect("a list") {
        for key in ["name", "kind", "symptom", "observations"] {
            assert!(keys(arm).contains(&key), "{key} is not in {:?}", keys(arm));
        }
        assert!(arm["symptom"].is_boolean() && arm["observations"].is_object(), "{arm}");
    }
    assert_eq!(outcome["arms"][0]["kind"], "control");
    assert_eq!(outcome["arms"][1]["symptom"], true);
    assert_eq!(keys(&outcome["seconds"]), ["wall", "virtual"]);
    assert!(outcome["seconds"]["wall"].as_f64() > Some(0.0));
}

fn a_ladder_fits_a_terminal() {
    needs_namespaces();
    let Answer { status, out, err } = ask(&format!("run {SHORT} --ladder"));
    assert_eq!(status, Some(0), "{out}{err}");
    for arm in ["control", "fault"] {
        assert!(out.contains(&format!("\n{SHORT}, {arm} arm\n")), "{arm}: {out}");
    }
    let drawn = || out.lines().filter(|line| line.contains('│'));
    assert!(drawn().any(|line| line.contains("SYN ACK seq 0 ack 1")), "{out}");
    assert!(drawn().all(|line| line.chars().count() <= 80), "{out}");
    assert!(refusal(&format!("run {SHORT} --ladder --json")).contains("cannot be used with"));
}

fn a_report_needs_nothing_else() {
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let (report, frames) = (folder.path().join("report"), folder.path().join("frames"));
    let line = format!("run {SHORT} --report {} --pcap {}", report.display(), frames.display());
    let Answer { status, out, err } = ask(&line);
    assert_eq!(status, Some(0), "{out}{err}");
    let html = fs::read_to_string(report.join("index.html")).expect("the report");
    assert!(!html.contains("://") && !html.contains("url("), "it asks for something else");
    let arms = json(&format!("run {SHORT} --json"))[0]["arms"].as_array().map_or(0, Vec::len);
    for drawing in ["Packets of ", "Conntrack&#39;s entries in "] {
        assert_eq!(html.matches(&format!(" role=\"img\" aria-label=\"{drawing}")).count(), arms, "{drawing}");
    }
    let links: Vec<&str> =
        html.split("<a href=\"..").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), arms);
    for link in links {
        assert!(frames.join("..").join(&link[1..]).exists(), "{link} leads nowhere");
    }
    for tag in ["article", "section", "details", "table", "div", "svg", "figure", "nav", "ul", "dl", "pre"] {
        let (opened, closed) = (format!("<{tag}"), format!("</{tag}>"));
        assert_eq!(html.matches(&opened).count(), html.matches(&closed).count(), "{tag}");
    }
}

/// What is told of a run, in one line.
fn told(line: &str) -> String {
    needs_namespaces();
    let Answer { status, out, err } = ask(line);
    assert_eq!(status, Some(0), "{out}{err}");
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn why_tells_the_reason_of_a_reset() {
    let told = told(&format!("run {SHORT} --why"));
    assert!(told.contains("fault, why: client answered data 10.0.2.2:9000 > 10.0.1.2:"), "{told}");
    // Whoever may see it is told what the kernel says, of remedies too.
    let drops = json("doctor --json").iter().any(|a| a["need"] == "drop reasons" && a["missing"].is_null());
    let said = if drops { " (client dropped it: NO_SOCKET in tcp_v4_rcv)" } else { "" };
    let wanted = format!("with a RST{said}: its connection is with 10.96.0.1:80; node did not");
    assert!(told.contains(&wanted), "{told}");
    assert_eq!(told.contains("be-liberal, why: client dropped 1 packet: "), drops, "{told}");
    // The words differ from kernel to kernel: "the upper bound", "upper bound 17".
    assert!(told.contains("to its conntrack it was INVALID: SEQ is over "), "{told}");
    assert!(!told.contains("control, why:"), "{told}");
}

fn why_tells_the_reason_of_a_timeout() {
    let told = told("run time-wait-port-reuse --arm rst-dropped --why");
    let (_, told) = told.split_once("rst-dropped, why: SYN ").expect("an explanation");
    assert!(told.contains(" was met by an ACK of server "), "{told}");
    assert!(told.contains(", the last from 192.0.2.1 to server, "), "{told}");
    // PAWSEstab before 6.18.
    assert!(told.contains("server counted PAWS"), "{told}");
}

fn why_tells_what_a_hang_waits_for() {
    let told = told("run veth-teardown-hang --arm delete-again --why");
    let (_, told) = told.split_once("fault, why: a request at node hung for ").expect("an explanation");
    assert!(told.contains(": attempt (D)") && told.contains(" reference to the device "), "{told}");
    assert!(!told.contains("control, why:"), "{told}");
}

fn who_looks_on_changes_nothing() {
    needs_namespaces();
    let why = |outcome: &Value| outcome["arms"][1]["why"].as_array().map_or(0, Vec::len);
    for line in [SHORT, "conntrack-close-wait-expiry", "time-wait-port-reuse"] {
        let outcome = |options: &str| json(&format!("run {line} --json {options}")).remove(0);
        let [blind, explained] = ["--no-captures", "--why"].map(outcome);
        assert_eq!(without_evidence(&blind), without_evidence(&explained), "{line}");
        assert_eq!(why(&blind), 0, "{line}");
        assert!(why(&explained) > 0, "{line}: {explained}");
        assert_eq!(explained["arms"][1].get("capture"), None, "{line}");
    }
    // What is as expected is explained where that is asked for.
    assert_eq!(why(&json(&format!("run {SHORT} --json"))[0]), 0);
    for option in ["--why", "--ladder", "--pcap x", "--report x"] {
        let refused = refusal(&format!("run {SHORT} --no-captures {option}"));
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}

fn what_is_not_as_expected_is_explained_unasked() {
    needs_namespaces();
    // The keepalive comes when the NAT has forgotten the flow.
    let told = |options: &str| {
        let Answer { status, out, err } =
            ask(&format!("run keepalive-behind-nat --arm keepalive --set app-time=30 {options}"));
        assert_eq!(status, Some(1), "{out}{err}");
        assert!(out.contains("keepalive-behind-nat  reproduced, NOT as expected"), "{out}");
        out
    };
    let explained = told("");
    let (_, why) = explained.split_once("\n  keepalive, why: nat answered data ").expect("an explanation");
    assert!(why.contains("conntrack had forgotten the flow"), "{explained}");
    assert!(!told("--no-captures").contains("why:"));
}

fn one_arm_runs_beside_control_and_fault() {
    needs_namespaces();
    let outcome = &json(&format!("run {SHORT} --arm be-liberal --json"))[0];
    let arms: Vec<_> = outcome["arms"].as_array().expect("a list").iter().map(|a| &a["name"]).collect();
    assert_eq!(arms, ["control", "fault", "be-liberal"]);
    assert_eq!(outcome["expected"], true, "{outcome}");
}

fn without_its_cause_a_fault_is_not_reproduced() {
    needs_namespaces();
    let outcome = &json(&format!("run {SHORT} --without-cause --json"))[0];
    let arms: Vec<_> = outcome["arms"].as_array().expect("a list").iter().map(|a| &a["name"]).collect();
    assert_eq!(arms, ["control", "fault"]);
    assert_eq!((&outcome["verdict"], &outcome["expected"]), (&Value::from("failed"), &Value::from(true)));
    let reason = outcome["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("nothing was reproduced"), "{reason}");
    assert!(refusal(&format!("run {SHORT} --without-cause --bisect")).contains("cannot be used with"));
}

fn a_terminal_has_progress_on_stderr_only() {
    needs_namespaces();
    let terminal = Terminal::new();
    let mut command = faultlab(&format!("run {SHORT}"));
    let Answer { status, out, .. } = answer(command.stderr(terminal.side()));
    drop(command);
    assert_eq!(status, Some(0), "{out}");
    assert!(!out.contains('\x1b'), "{out:?}");
    let progress = terminal.text();
    assert!(progress.contains("trying what this machine can do"), "{progress:?}");
    assert!(progress.contains(SHORT) && progress.contains(" arms "), "{progress:?}");
    // What it drew it has wiped: the last it did was to clear a line.
    assert!(progress.trim_end_matches('\r').ends_with("\x1b[2K"), "{progress:?}");
}

fn a_terminal_has_colour_on_stdout_unless_it_is_unwanted() {
    let coloured = |variable: Option<(&str, &str)>| {
        let terminal = Terminal::new();
        let mut command = faultlab("list");
        command.envs(variable);
        let Answer { status, err, .. } = answer(command.stdout(terminal.side()));
        drop(command);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        terminal.text().contains("\x1b[1m")
    };
    assert!(coloured(None));
    // https://no-color.org: any value that is not empty.
    assert!(coloured(Some(("NO_COLOR", ""))));
    assert!(!coloured(Some(("NO_COLOR", "1"))));
    assert!(!coloured(Some(("TERM", "dumb"))));
}

/// `faultlab` with these arguments, and these commands for its shell.
fn ask_shell(line: &str, commands: &str) -> Answer {
    let (read, write) = io::pipe().expect("a pipe");
    { write }.write_all(commands.as_bytes()).expect("a pipe has room for a few commands");
    answer(faultlab(line).stdin(read).env("SHELL", "/bin/sh"))
}

fn a_shell_in_a_pipe_has_the_hosts_and_passes_its_status_on() {
    needs_namespaces();
    // Nobody listens any more: that the client is told so says that the wire
    // before the server still carries frames, both ways.
    let commands = "
        ls /run/netns
        echo $FAULTLAB_SCENARIO $FAULTLAB_ARM
        nsenter --net=/run/netns/client bash -c ': < /dev/tcp/10.96.0.1/80' 2>&1 | grep -o -m 1 'Connection refused'
        exit 7";
    let Answer { status, out, err } = ask_shell(&format!("shell {SHORT} --arm drop-invalid"), commands);
    assert_eq!(out, format!("client\nnode\nserver\n{SHORT} drop-invalid\nConnection refused\n"), "{err}");
    assert_eq!(status, Some(7), "{err}");
    assert!(err.starts_with(&format!("{SHORT}, drop-invalid arm\n")) && !err.contains('\x1b'), "{err}");
    for told in ["What people saw", "the server's connection: open", "ip netns exec server"] {
        assert!(err.contains(told), "{told:?} is not in {err}");
    }
}

fn a_shell_that_cannot_be_is_one_sentence() {
    for (line, sentence) in [
        ("shell tw-recyle", "no scenario is named \"tw-recyle\"; did you mean tw-recycle-nat?"),
        (
            "shell tw-recycle-nat --arm recycle-of",
            "no arm is named \"recycle-of\"; did you mean recycle-off?",
        ),
    ] {
        assert_eq!(refusal(line), format!("faultlab: {sentence}\n"));
    }
    let Answer { status, out, err } = ask("shell conntrack-table-full");
    assert_eq!((status, out.as_str()), (Some(69), ""));
    assert!(err.contains("it needs a kernel of its own") && err.lines().count() == 1, "{err}");
}

fn a_shell_has_the_terminal_and_ctrl_c_ends_what_runs_in_it() {
    needs_namespaces();
    // bash has a prompt of its own from its start-up files.
    for shell in ["/bin/sh", "/bin/bash"] {
        let mut terminal = Terminal::new();
        let mut command = faultlab(&format!("shell {SHORT}"));
        command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
        let mut session = Session::start(command.env("SHELL", shell));
        terminal.wait_for(&format!("({SHORT} fault) "));
        // Said by the one that is to be interrupted, when it has the terminal.
        terminal.type_line("sh -c 'echo be\"\"gun; exec sleep 1000'");
        terminal.wait_for("begun");
        terminal.interrupt();
        terminal.type_line("echo st''ill $FAULTLAB_ARM");
        terminal.wait_for("still fault");
        terminal.type_line("exit 3");
        assert_eq!(session.status(), Some(3), "{shell}");
        session.gone(Instant::now());
    }
}

fn an_exercise_keeps_its_secret() {
    needs_namespaces();
    let Answer { status, out, err } =
        ask_shell(&format!("shell {SHORT} --exercise"), "hint; check; echo $?; exit 7");
    assert_eq!(status, Some(7), "{err}");
    assert!(err.contains("What people saw") && err.contains("node (router)"), "{err}");
    let scenario = scenarios::CATALOGUE.find(SHORT).expect("it is in the catalogue");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for secret in [scenario.card.title, scenario.card.cause, scenario.card.function, scenario.card.cure]
        .into_iter()
        .chain(scenario.arms.iter().map(|arm| arm.change))
    {
        assert!(
            !words(&err).contains(secret) && !words(&out).contains(secret),
            "{secret:?} is told in {err}{out}"
        );
    }
    assert!(
        out.starts_with("Hint 1 of 4: ") && out.contains("\nNot solved, 1 attempt and 1 hint: "),
        "{out}"
    );
    assert!(out.ends_with("\n1\n"), "{out}");
    assert!(err.contains("Left unsolved, 1 attempt and 1 hint."), "{err}");
}

fn an_exercise_tells_a_wrong_remedy_from_a_right_one() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut command = faultlab("shell conntrack-idle-expiry --exercise");
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let mut session = Session::start(command.env("SHELL", "/bin/sh"));
    let on_the_node = |terminal: &mut Terminal, sysctl: &str, value: u32| {
        let file = format!("/proc/sys/net/netfilter/{sysctl}");
        terminal.type_line(&format!("nsenter --net=/run/netns/node sh -c 'echo {value} > {file}'; check"));
    };
    terminal.wait_for("(conntrack-idle-expiry exercise) ");
    terminal.type_line("check --help");
    terminal.wait_for("Play the probes again");
    // Interrupted, it is no attempt.
    terminal.type_line("check");
    terminal.wait_for("The probes are played again");
    terminal.interrupt();
    on_the_node(&mut terminal, "nf_conntrack_tcp_be_liberal", 1);
    terminal.wait_for("Not solved, 1 attempt and 0 hints: the first words after it: reset");
    for n in 1..=4 {
        terminal.type_line("hint");
        terminal.wait_for(&format!("Hint {n} of 4: "));
    }
    on_the_node(&mut terminal, "nf_conntrack_tcp_timeout_established", 432_000);
    terminal.wait_for("Solved, 2 attempts and 4 hints: the first words after it: received");
    terminal.type_line("solution");
    terminal.wait_for("What cures it");
    terminal.type_line("exit 3");
    assert_eq!(session.status(), Some(3));
    session.gone(Instant::now());
    drop(command);
    assert!(!Path::new("/run/faultlab").exists());
    assert!(!terminal.text().contains("Left unsolved"));
}

fn a_hang_is_solved_by_the_end_of_who_holds_it() {
    needs_namespaces();
    for scenario in ["veth-teardown-hang", "pod-stuck-terminating"] {
        let symptom = scenarios::CATALOGUE.find(scenario).expect("it is in the catalogue").symptom.row;
        let mut terminal = Terminal::new();
        let mut command = faultlab(&format!("shell {scenario} --exercise"));
        command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
        let mut session = Session::start(command.env("SHELL", "/bin/sh"));
        terminal.wait_for(&format!("({scenario} exercise) "));
        terminal.type_line(
            "nsenter --net=/run/netns/node sh -c 'echo 1 > /proc/sys/net/ipv4/route/flush'; check",
        );
        terminal.wait_for(&format!("Not solved, 1 attempt and 0 hints: {symptom}: waits"));
        // It sleeps in sendto(), and its name says what it holds.
        terminal.type_line("kill $(grep -l ^hold /proc/[0-9]*/comm | cut -d/ -f3); check");
        terminal.wait_for(&format!("Solved, 2 attempts and 0 hints: {symptom}: "));
        // What has ended stays ended.
        terminal.type_line("check");
        terminal.wait_for("Solved, 3 attempts");
        terminal.type_line("exit 3");
        assert_eq!(session.status(), Some(3), "{scenario}");
        session.gone(Instant::now());
    }
}

fn an_exercise_that_cannot_be_is_one_sentence() {
    let sentence = refusal("shell netns-teardown-hang --exercise");
    assert!(sentence.contains("it needs a kernel of its own"), "{sentence}");
    assert!(sentence.contains("conntrack-idle-expiry") && sentence.lines().count() == 1, "{sentence}");
    // Its commands are this program.
    let place = tempfile::tempdir().expect("a directory");
    let command = place.path().join("check");
    symlink(env!("CARGO_BIN_EXE_faultlab"), &command).expect("a link");
    let Answer { status, err, .. } = answer(&mut Command::new(command));
    assert_eq!(status, Some(69));
    assert!(err.contains("faultlab shell SCENARIO --exercise") && err.lines().count() == 1, "{err}");
}

fn ctrl_c_ends_a_hang() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut session = Session::in_the_hang(&mut terminal);
    terminal.interrupt();
    let pressed = Instant::now();
    assert_eq!(session.status(), Some(130));
    let gone = session.gone(pressed);
    assert!(gone < SOON, "{gone:?}");
}

fn sigterm_ends_a_hang() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut session = Session::in_the_hang(&mut terminal);
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
    // 128 + SIGPIPE, as a shell tells of a program that the signal ended.
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

/// Runs the command as an ordinary user of a user namespace in which no other
/// may be made: user.max_user_namespaces is each user namespace's own.
fn where_namespaces_are_forbidden(command: &mut Command) -> &mut Command {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let maps =
        [("/proc/self/uid_map", format!("1000 {uid} 1")), ("/proc/self/gid_map", format!("1000 {gid} 1"))];
    let forbid = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // Where setgroups cannot be denied (before 3.19), it need not be.
        let _ = fs::write("/proc/self/setgroups", "deny");
        for (file, map) in &maps {
            fs::write(file, map)?;
        }
        // exec() by a user that is not root takes the capabilities away.
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
