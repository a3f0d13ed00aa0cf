//! The output of a run: text and JSON, ladders, reports and explanations.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs;

use faultlab_testkit::{Answer, Terminal, answer};
use serde_json::Value;

use user::{SHORT, ask, faultlab, json, keys, needs_namespaces, refusal, without_evidence};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    a_run_is_told_in_a_pipe_without_escape_sequences,
    a_run_in_json_has_the_documented_keys,
    a_ladder_fits_a_terminal,
    a_report_needs_nothing_else,
    why_tells_the_reason_of_a_reset,
    why_tells_the_reason_of_a_timeout,
    why_tells_what_a_hang_waits_for,
    who_looks_on_changes_nothing,
    what_has_no_reference_is_explained_unasked,
    a_remedy_that_is_too_slow_for_these_values_is_named,
    a_pause_can_be_too_long_for_a_timeout_or_not,
    an_arm_alone_runs_the_scenarios_that_have_it,
    one_arm_runs_beside_control_and_fault,
    without_its_cause_a_fault_is_not_reproduced,
    a_terminal_has_progress_on_stderr_only,
    a_terminal_has_colour_on_stdout_unless_it_is_unwanted,
];

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
    assert_eq!(keys(&outcome["seconds"]), ["wall", "virtual", "wire"]);
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
    // Output to a pipe is 100 columns wide.
    assert!(drawn().all(|line| line.chars().count() <= 100), "{out}");
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

/// The output of a run, with all white space as single spaces.
fn told(line: &str) -> String {
    needs_namespaces();
    let Answer { status, out, err } = ask(line);
    assert_eq!(status, Some(0), "{out}{err}");
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn why_tells_the_reason_of_a_reset() {
    let told = told(&format!("run {SHORT} --why"));
    assert!(told.contains("fault, why: client answered data 10.0.2.2:9000 > 10.0.1.2:"), "{told}");
    // The kernel's drop reasons are included if this user may read them.
    let drops = json("doctor --json").iter().any(|a| a["need"] == "drop reasons" && a["missing"].is_null());
    let said = if drops { " (client dropped it: NO_SOCKET in tcp_v4_rcv)" } else { "" };
    let wanted = format!("with a RST{said}: its connection is with 10.96.0.1:80; node did not");
    assert!(told.contains(&wanted), "{told}");
    // A remedy with the cells of the control needs no explanation.
    assert!(!told.contains("be-liberal, why:"), "{told}");
    // The wording differs between kernels: "the upper bound", "upper bound 17".
    assert!(told.contains("to its conntrack it was INVALID: SEQ is over "), "{told}");
    assert!(!told.contains("control, why:"), "{told}");
}

fn why_tells_the_reason_of_a_timeout() {
    let told = told("run time-wait-port-reuse --arm rst-dropped --why");
    let (_, told) = told.split_once("rst-dropped, why: SYN ").expect("an explanation");
    assert!(told.contains(" was answered with an ACK by server "), "{told}");
    assert!(told.contains(", the last of 192.0.2.1:40000 > 192.0.2.2:80, "), "{told}");
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
    // An expected outcome is explained on request.
    assert_eq!(why(&json(&format!("run {SHORT} --json"))[0]), 0);
    for option in ["--why", "--ladder", "--pcap x", "--report x"] {
        let refused = refusal(&format!("run {SHORT} --no-captures {option}"));
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}

fn what_has_no_reference_is_explained_unasked() {
    needs_namespaces();
    // The NAT has removed its entry before the first keepalive probe.
    let told = |options: &str| {
        let Answer { status, out, err } =
            ask(&format!("run keepalive-behind-nat --arm keepalive --set app-time=30 {options}"));
        assert_eq!(status, Some(0), "{out}{err}");
        assert!(out.contains("keepalive-behind-nat  reproduced, no reference"), "{out}");
        assert!(out.ends_with("1 outcome: 1 reproduced; no reference\n"), "{out}");
        out
    };
    let explained = told("");
    let (_, why) = explained.split_once("\n  keepalive, why: nat answered data ").expect("an explanation");
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(why.contains("conntrack had forgotten the flow"), "{explained}");
    assert!(!told("--no-captures").contains("why:"));
}

/// The outcome and its reason, for a run with settings that no snapshot has.
fn with_values(line: &str, status: i32) -> (Value, String) {
    let Answer { status: ended, out, err } = ask(&format!("run {line} --json"));
    assert_eq!(ended, Some(status), "{out}{err}");
    let outcome: Value = serde_json::from_str(&out).expect("one outcome");
    assert_eq!((&outcome["expected"], &outcome["without_reference"]), (&(status == 0).into(), &true.into()));
    let reason = outcome["reason"].as_str().expect("a reason").to_owned();
    (outcome, reason)
}

fn a_remedy_that_is_too_slow_for_these_values_is_named() {
    needs_namespaces();
    let values = "--set established=2 --set keepalive-time=2min";
    let (_, reason) = with_values(&format!("conntrack-idle-expiry --arm keepalive {values}"), 0);
    assert_eq!(
        reason,
        "no reference for these values (established=2, keepalive-time=120): judged by difference alone; keepalive does \
         not help with these values: a keepalive of 120 s is too slow for a timeout of 2 s"
    );
}

fn a_pause_can_be_too_long_for_a_timeout_or_not() {
    needs_namespaces();
    let run = |values: &str, status| {
        with_values(&format!("conntrack-close-wait-expiry --arm close-wait-3600 {values}"), status).1
    };
    let reason = run("--set pause=4 --set close-wait-kube-proxy=3", 0);
    assert!(
        reason.ends_with(
            "close-wait-3600 does not help with these values: a pause of 4 s is longer than a timeout of 3 s"
        ),
        "{reason}"
    );
    let reason = run("--set pause=4 --set close-wait=6", 1);
    assert!(
        reason.ends_with("with the fault and without it: a timeout of 6 s is long enough for a pause of 4 s"),
        "{reason}"
    );
}

fn an_arm_alone_runs_the_scenarios_that_have_it() {
    needs_namespaces();
    let outcomes = json("run --arm be-liberal --json");
    let names: Vec<_> = outcomes.iter().map(|outcome| &outcome["scenario"]).collect();
    let have_it =
        ["conntrack-delayed-segment-reset", SHORT, "syn-sent-stale-translation", "asymmetric-route-invalid"];
    assert_eq!(names, have_it);
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
    let told = ask(&format!("run {SHORT} --without-cause")).out;
    let heading = format!("{SHORT}  without its cause: nothing differs, as it should\n");
    assert!(told.starts_with(&heading) && !told.contains("fail"), "{told}");
    assert!(refusal(&format!("run {SHORT} --without-cause --arm fault")).contains("cannot be used with"));
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
    // The progress display is erased: the last control sequence clears a line.
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
    // https://no-color.org: any non-empty value.
    assert!(coloured(Some(("NO_COLOR", ""))));
    assert!(!coloured(Some(("NO_COLOR", "1"))));
    assert!(!coloured(Some(("TERM", "dumb"))));
}
