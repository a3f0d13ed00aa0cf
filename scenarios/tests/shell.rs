//! Shells in a network, and exercises.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use faultlab_testkit::{Answer, Session, Terminal, answer};
use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;
use user::{SHORT, ask, faultlab, needs_namespaces, refusal};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    a_shell_in_a_pipe_has_the_hosts_and_passes_its_status_on,
    a_check_in_a_plain_shell_plays_the_probes_again,
    a_check_in_a_plain_shell_looks_at_a_hang_again,
    a_shell_that_cannot_be_is_one_sentence,
    a_shell_has_the_terminal_and_ctrl_c_ends_what_runs_in_it,
    a_shell_that_is_ended_gives_the_terminal_back_as_it_was,
    an_exercise_keeps_its_secret,
    a_picked_exercise_is_secret_until_it_is_solved,
    an_exercise_tells_a_wrong_remedy_from_a_right_one,
    a_hang_is_solved_by_the_end_of_who_holds_it,
    an_exercise_that_cannot_be_is_one_sentence,
];

/// `faultlab` with these arguments, and with these commands for its shell.
fn ask_shell(line: &str, commands: &str) -> Answer {
    let (read, write) = io::pipe().expect("a pipe");
    { write }.write_all(commands.as_bytes()).expect("a pipe has room for a few commands");
    answer(faultlab(line).stdin(read).env("SHELL", "/bin/sh"))
}

fn a_shell_in_a_pipe_has_the_hosts_and_passes_its_status_on() {
    needs_namespaces();
    // The listener is closed. That the client gets a RST shows that the wire in
    // front of the server still carries frames in both directions.
    let commands = "
        ls /run/netns
        echo $FAULTLAB_SCENARIO $FAULTLAB_ARM
        nsenter --net=/run/netns/client bash -c ': < /dev/tcp/10.96.0.1/80' 2>&1 | grep -o -m 1 'Connection refused'
        exit 7";
    let Answer { status, out, err } = ask_shell(&format!("shell {SHORT} --arm drop-invalid"), commands);
    assert_eq!(out, format!("client\nnode\nserver\n{SHORT} drop-invalid\nConnection refused\n"), "{err}");
    assert_eq!(status, Some(7), "{err}");
    let begins = format!("Playing the drop-invalid arm of {SHORT}.\n{SHORT}, drop-invalid arm\n");
    assert!(err.starts_with(&begins) && !err.contains('\x1b'), "{err}");
    for told in ["What people saw", "the server's connection: open", "ip netns exec server"] {
        assert!(err.contains(told), "{told:?} is not in {err}");
    }
}

fn a_check_in_a_plain_shell_plays_the_probes_again() {
    needs_namespaces();
    let liberal = "echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
    let commands = format!(
        "check; echo $?; nsenter --net=/run/netns/node sh -c '{liberal}'; check; echo $?; hint; echo $?"
    );
    let Answer { status, out, err } = ask_shell(&format!("shell {SHORT}"), &commands);
    assert_eq!(status, Some(0), "{err}");
    assert!(err.contains("`check` plays the probes again"), "{err}");
    // If nothing was changed, the result is that of the first play.
    let again = "The probes are played again; the first time it took ";
    let [before, after] =
        ["\n1\n", "\n0\n"].map(|status| out.find(status).unwrap_or_else(|| panic!("{out}")));
    let (before, after) = (&out[..before], &out[before..after]);
    assert!(before.starts_with(again) && !before.contains("at first"), "{out}");
    assert!(
        before.contains("The symptom is there; in a healthy network, the server's connection: open\n"),
        "{out}"
    );
    assert!(after.contains("The symptom is not there.\n"), "{out}");
    assert!(after.contains("  the server's connection: open (at first: reset)\n"), "{out}");
    // Hints and the solution belong to an exercise.
    assert!(out.ends_with("\n127\n"), "{out}");
}

fn a_check_in_a_plain_shell_looks_at_a_hang_again() {
    needs_namespaces();
    let commands = "check; echo $?; kill $(grep -l ^hold /proc/[0-9]*/comm | cut -d/ -f3); check; echo $?";
    let Answer { status, out, err } = ask_shell("shell veth-teardown-hang", commands);
    assert_eq!(status, Some(0), "{err}");
    let [before, after] =
        ["\n1\n", "\n0\n"].map(|status| out.find(status).unwrap_or_else(|| panic!("{out}")));
    assert!(
        before < after && out.starts_with("Looking again at the call that hangs.\nThe symptom is there; "),
        "{out}"
    );
    // In the control no request waits, and its probes have deleted a device:
    // they cannot be played twice.
    let Answer { status, out, err } = ask_shell("shell veth-teardown-hang --arm control", "check");
    let cannot = "It cannot be checked now: these probes cannot be played twice on one network\n";
    assert_eq!((status, out.as_str()), (Some(69), cannot), "{err}");
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
    // bash sets its own prompt from its start-up files.
    for shell in ["/bin/sh", "/bin/bash"] {
        let mut terminal = Terminal::new();
        let mut command = faultlab(&format!("shell {SHORT}"));
        command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
        let mut session = Session::start(command.env("SHELL", shell));
        terminal.wait_for(&format!("({SHORT} fault) "));
        // Printed by the command to interrupt, once it has the terminal.
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

fn a_shell_that_is_ended_gives_the_terminal_back_as_it_was() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    // Even with TOSTOP, the worker, a background process, must be able to
    // print.
    let mut before = terminal.modes();
    before.local_flags |= LocalFlags::TOSTOP;
    terminal.set_modes(&before);
    let mut command = faultlab(&format!("shell {SHORT}"));
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let mut session = Session::start(command.env("SHELL", "/bin/bash"));
    terminal.wait_for(&format!("({SHORT} fault) "));
    assert_ne!(terminal.modes(), before, "bash reads key by key");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.status(), Some(128 + Signal::SIGTERM as i32));
    session.gone(Instant::now());
    assert_eq!(terminal.modes(), before);
}

fn an_exercise_keeps_its_secret() {
    needs_namespaces();
    // A command whose output nobody reads must not report an error.
    let commands = "hint; check; echo $?; (sleep 1; solution; echo $? >&2) | true; exit 7";
    let Answer { status, out, err } = ask_shell(&format!("shell {SHORT} --exercise"), commands);
    assert_eq!(status, Some(7), "{err}");
    assert!(err.contains("What people saw") && err.contains("node (router)"), "{err}");
    let scenario = scenarios::CATALOGUE.find(SHORT).expect("it is in the catalogue");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for secret in [scenario.card.title, scenario.card.cause, scenario.card.function, scenario.card.cure]
        .into_iter()
        .chain(scenario.arms().iter().map(|arm| arm.change))
    {
        assert!(
            !words(&err).contains(secret) && !words(&out).contains(secret),
            "{secret:?} is told in {err}{out}"
        );
    }
    assert!(
        out.starts_with("Hint 1 of 5: ")
            && !out.contains(scenario.card.family)
            && out.contains("\nNot solved, 1 attempt and 1 hint: "),
        "{out}"
    );
    assert!(out.ends_with("\n1\n"), "{out}");
    assert!(err.contains("\n141\nLeft unsolved, 1 attempt and 1 hint."), "{err}");
}

fn a_picked_exercise_is_secret_until_it_is_solved() {
    needs_namespaces();
    // With this seed the shortest scenario is picked first. Another scenario in the
    // catalogue may need another seed.
    let line = "shell --exercise --seed 49";
    let (liberal, named) =
        ("echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", format!("This was {SHORT}."));
    let cure = format!("nsenter --net=/run/netns/node sh -c '{liberal}'");
    let commands = format!("echo $PS1 $FAULTLAB_SCENARIO; set; hint; check; echo begin; {cure}; check");
    let Answer { status, out, err } = ask_shell(line, &commands);
    assert_eq!(status, Some(0), "{err}");
    let (before, after) = out.split_once("begin\n").unwrap_or_else(|| panic!("{out}{err}"));
    assert!(before.starts_with("(secret exercise) $ secret\n"), "{before}");
    for scenario in scenarios::CATALOGUE.scenarios {
        let (name, family) = (scenario.card.name, scenario.card.family);
        assert!(
            ![before, &err].iter().any(|text| text.contains(name) || text.contains(family)),
            "{name}: {before}{err}"
        );
    }
    assert!(after.contains("Solved, 2 attempts and 1 hint: ") && after.contains(&named), "{after}");
    assert!(!err.contains("Left unsolved"), "{err}");

    // An exercise that is left stays secret, and can be started again.
    let Answer { status, out, err } = ask_shell(line, "exit 7");
    assert_eq!((status, out.as_str()), (Some(7), ""), "{err}");
    assert!(
        err.ends_with("Left unsolved, 0 attempts and 0 hints. --seed 49 picks the same exercise again.\n"),
        "{err}"
    );
    // The solution begins with the name.
    let Answer { out, .. } = ask_shell(line, "solution");
    assert!(out.starts_with(&format!("{named}\n")), "{out}");
}

fn an_exercise_tells_a_wrong_remedy_from_a_right_one() {
    needs_namespaces();
    let mut terminal = Terminal::new();
    let mut command = faultlab("shell conntrack-idle-expiry --exercise");
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let mut session = Session::start(command.env("SHELL", "/bin/sh"));
    // The arm takes seconds. No row is shown: its name may reveal the cause.
    terminal.wait_for("\rPlaying the exercise, 0 s\x1b[K\rPlaying the exercise, ");
    let on_the_node = |terminal: &mut Terminal, sysctl: &str, value: u32| {
        let file = format!("/proc/sys/net/netfilter/{sysctl}");
        terminal.type_line(&format!("nsenter --net=/run/netns/node sh -c 'echo {value} > {file}'; check"));
    };
    terminal.wait_for("(conntrack-idle-expiry exercise) ");
    terminal.type_line("check --help");
    terminal.wait_for("Play the probes again");
    // An interrupted check does not count as an attempt.
    terminal.type_line("check");
    terminal.wait_for("The probes are played again");
    terminal.interrupt();
    on_the_node(&mut terminal, "nf_conntrack_tcp_be_liberal", 1);
    terminal.wait_for("Not solved, 1 attempt and 0 hints: the first words after it: reset");
    for n in 1..=5 {
        terminal.type_line("hint");
        terminal.wait_for(&format!("Hint {n} of 5: "));
    }
    on_the_node(&mut terminal, "nf_conntrack_tcp_timeout_established", 432_000);
    terminal.wait_for("Solved, 2 attempts and 5 hints: the first words after it: received");
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
        // The holder sleeps in sendto(); its process name begins with "hold".
        terminal.type_line("kill $(grep -l ^hold /proc/[0-9]*/comm | cut -d/ -f3); check");
        terminal.wait_for(&format!("Solved, 2 attempts and 0 hints: {symptom}: "));
        // A later check gives the same result.
        terminal.type_line("check");
        terminal.wait_for("Solved, 3 attempts");
        terminal.type_line("exit 3");
        assert_eq!(session.status(), Some(3), "{scenario}");
        session.gone(Instant::now());
    }
}

fn an_exercise_that_cannot_be_is_one_sentence() {
    for line in ["shell", "shell --arm fault", "shell --seed 1", "shell tw-recycle-nat --exercise --seed 1"] {
        assert!(refusal(line).starts_with("error: "), "{line}");
    }
    assert_eq!(
        refusal("shell --exercise --set recycle=model"),
        "faultlab: --set needs a scenario: a secret exercise has its own settings\n"
    );
    let sentence = refusal("shell route-exception-leak --exercise");
    assert!(sentence.contains("nothing ends the fault once it is there"), "{sentence}");
    assert!(sentence.contains("netns-teardown-hang") && sentence.lines().count() == 1, "{sentence}");
    let Answer { status, err, .. } = ask("shell netns-teardown-hang --exercise");
    assert_eq!(status, Some(69));
    assert!(err.contains("which --kernel gives it") && err.lines().count() == 1, "{err}");
    // The commands of a shell are links to this program.
    let place = tempfile::tempdir().expect("a directory");
    for (name, shell) in
        [("check", "`faultlab shell SCENARIO`"), ("hint", "`faultlab shell SCENARIO --exercise`")]
    {
        let command = place.path().join(name);
        symlink(env!("CARGO_BIN_EXE_faultlab"), &command).expect("a link");
        let Answer { status, err, .. } = answer(&mut Command::new(command));
        assert_eq!(status, Some(69));
        assert_eq!(err, format!("faultlab: {name} works in the shell of {shell} only\n"));
    }
}
