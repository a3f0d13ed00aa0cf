//! The command line, as a user types it.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs::{self};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use faultlab_testkit::{Answer, PATIENCE, Session, Terminal, answer, leave_out};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use user::{SHORT, SOON, ask, faultlab, in_the_hang, json, keys, needs_namespaces, refusal};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    no_arguments_print_the_help,
    a_typo_finds_its_scenario,
    an_unknown_setting_lists_the_known,
    a_number_out_of_range_names_the_range,
    a_malformed_setting_says_what_it_should_be,
    values_that_take_days_are_refused_on_a_real_clock,
    a_setting_has_one_value,
    an_arm_that_cannot_run_is_refused_before_anything_runs,
    an_unknown_arm_suggests_the_nearest,
    an_unknown_flag_is_named,
    what_is_mistyped_is_no_bad_commit,
    list_names_every_scenario,
    remedies_say_what_helps_where,
    show_tells_the_story,
    doctor_says_what_can_be_done,
    ctrl_c_ends_a_hang,
    sigterm_ends_a_hang,
    ctrl_c_prints_what_is_finished,
    a_second_ctrl_c_ends_at_once,
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
        "faultlab: no setting is named \"recylce\"; did you mean recycle?\n"
    );
    assert_eq!(
        refusal("run veth-teardown-hang --set x=1"),
        "faultlab: no setting is named \"x\"; veth-teardown-hang has none\n"
    );
    assert_eq!(
        refusal("run veth-teardown-hang rtnl-stall --set x=1"),
        "faultlab: no setting is named \"x\"; these scenarios have none\n"
    );
}

fn a_number_out_of_range_names_the_range() {
    snapshot!("out-of-range", refusal("run keepalive-dead-peer --set time=30d"));
    assert_eq!(refusal("run --set time=30d"), refusal("run keepalive-dead-peer --set time=30d"));
    snapshot!("no-number", refusal("run keepalive-dead-peer --set time=soon"));
    snapshot!("no-choice", refusal("run tw-recycle-nat --set recycle=model-3.10"));
    snapshot!("jobs", refusal("run --jobs 0"));
}

fn a_malformed_setting_says_what_it_should_be() {
    assert_eq!(
        refusal("run tw-recycle-nat --set recycle"),
        "faultlab: --set takes KEY=VALUE, not \"recycle\"\n"
    );
}

fn values_that_take_days_are_refused_on_a_real_clock() {
    assert_eq!(
        refusal("run conntrack-idle-expiry --set established=5d"),
        "faultlab: conntrack-idle-expiry with established=432000 would take 5.1 days of real time; with --kernel ID it \
         runs in virtual time\n"
    );
    // A timeout that nothing waits for may be as long as the kernel's default.
    let refused = refusal("run conntrack-idle-expiry --set keepalive-time=7200 --set established=2h");
    assert!(refused.contains("would take 2 hours of real time"), "{refused}");
    assert!(refusal("shell conntrack-idle-expiry --set established=5d").contains("would take 5.1 days"));
    let refused = refusal("run conntrack-idle-expiry --kernel x --real-time --set established=5d");
    assert!(refused.contains("without --real-time"), "{refused}");
}

fn a_setting_has_one_value() {
    assert_eq!(
        refusal("run keepalive-dead-peer --set time=5 --set time=1min"),
        "faultlab: --set time is given twice, as 5 and as 60\n"
    );
}

fn an_arm_that_cannot_run_is_refused_before_anything_runs() {
    assert_eq!(
        refusal("run conntrack-idle-expiry veth-teardown-hang --arm keepalive"),
        "faultlab: veth-teardown-hang: no arm is named \"keepalive\"; there are delete-again, delete-the-peer, \
         end-the-holder\n"
    );
    assert_eq!(
        refusal("run pod-stuck-terminating --arm rtnl-stalled"),
        "faultlab: the arm rtnl-stalled does not apply to this kernel with these settings\n"
    );
    for kernel in ["", " --kernel no-such-kernel"] {
        assert!(refusal(&format!("run --arm keepalife{kernel}")).contains("did you mean keepalive?"));
        assert!(refusal(&format!("run --set tme=5{kernel}")).contains("did you mean time?"));
    }
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

fn remedies_say_what_helps_where() {
    let found = json("remedies conntrack-idle-expiry --json");
    let helps = |arm: &str| {
        let remedies = found[0]["remedies"].as_array().expect("a list");
        remedies.iter().find(|remedy| remedy["arm"] == arm).map(|remedy| remedy["helps"].clone())
    };
    assert_eq!([helps("keepalive"), helps("drop-invalid")], [Some(true.into()), Some(false.into())]);
    assert_eq!((found.len(), &found[0]["this_kernel"]), (1, &true.into()));
    let text = ask("remedies").out;
    assert!(names().iter().all(|name| text.contains(&format!("{name}\n"))), "{text}");
    assert!(text.contains("    does not help  drop-invalid: "), "{text}");
    assert_eq!(ask("remedies conntrack-idle-expire").status, Some(2));
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

fn ctrl_c_prints_what_is_finished() {
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let junit = folder.path().join("junit.xml");
    let mut terminal = Terminal::new();
    // The last scenario is finished at once. Its outcome is printed after that
    // of the hang.
    let mut command = faultlab(&format!("run {SHORT} veth-teardown-hang rtnl-stall --json --junit"));
    command.arg(&junit).stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let mut session = Session::start(&mut command);
    drop(command);
    // Ctrl-C discards what the terminal has not yet shown (termios(3): NOFLSH).
    terminal.wait_for("}}\r\n");
    terminal.wait_for("1/5 arms");
    terminal.interrupt();
    assert_eq!(session.status(), Some(130));
    session.gone(Instant::now());
    let text = terminal.text();
    let line = text.lines().find(|line| line.contains("\"scenario\":\"rtnl-stall\"")).unwrap_or_default();
    let line = &line[line.find('{').unwrap_or(0)..];
    let outcome: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(outcome["verdict"], "not-applicable");
    let sentence = "faultlab: interrupted: 1 of 3 were not run to the end: veth-teardown-hang\r\n";
    assert!(text.contains(sentence), "{text}");
    let report = fs::read_to_string(&junit).expect("a report");
    assert!(report.contains(SHORT) && report.contains("not run: interrupted"), "{report}");
}

/// A full pipe, and its reader.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("fcntl");
    set(OFlag::O_NONBLOCK);
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    set(OFlag::empty());
    writer.flush().expect("nothing is kept");
    (reader, writer)
}

fn a_second_ctrl_c_ends_at_once() {
    needs_namespaces();
    let (_reader, writer) = full_pipe();
    let mut terminal = Terminal::new();
    let mut command = faultlab("run veth-teardown-hang rtnl-stall --json");
    command.stdin(terminal.side()).stdout(writer).stderr(terminal.side());
    let mut session = Session::start(&mut command);
    drop(command);
    terminal.wait_for("1/5 arms");
    terminal.interrupt();
    // It has ended its worker, and blocks on the full pipe.
    let pressed = Instant::now();
    while session.processes().len() > 1 && pressed.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    terminal.interrupt();
    let pressed = Instant::now();
    assert_eq!(session.status(), Some(130));
    let gone = session.gone(pressed);
    assert!(gone < SOON, "{gone:?}");
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
