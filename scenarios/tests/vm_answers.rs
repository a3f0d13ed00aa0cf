//! A guest's kernel and its init are not trusted. In these tests a script
//! replaces QEMU, and sends reports that the lab's own init would not send.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use faultlab_testkit::{Answer, PATIENCE, Session, Terminal, answer};
use lab::machine::job::Report;
use lab::machine::protocol::{Frame, REPORT};
use lab::outcome::{self, ArmOutcome, Map, Outcome, Seconds, Verdict};
use lab::scenario::{Clock, Scenario};
use lab::snapshot;
use nix::sys::signal::Signal;
use scenarios::CATALOGUE;
use serde_json::Value;
use tempfile::TempDir;

use user::{SHORT, faultlab};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    an_answer_is_judged_by_the_lab,
    a_table_that_is_not_as_reviewed_is_not_expected_whatever_the_guest_says,
    an_answer_to_another_question_is_no_answer,
    one_question_has_one_answer,
    a_report_that_nobody_asked_for_ends_the_guest,
    an_outcome_of_other_arms_or_settings_is_not_believed,
    an_outcome_without_bounds_is_not_believed,
    heads_without_bodies_end_the_guest,
    a_signal_ends_a_run_whose_guest_floods_it,
    ctrl_c_prints_what_a_guest_has_finished,
    a_guest_that_reports_nothing_is_told_of_by_its_console,
    a_qemu_that_fails_is_quoted,
    scenarios_on_a_kernel_are_counted_as_scenarios,
];

/// A directory with everything that a run needs.
struct Machine {
    dir: TempDir,
    path: String,
}

/// The release of the kernel, which is never booted.
const RELEASE: &str = "6.12.0-none";

impl Machine {
    /// A kernel image, and a script in place of QEMU. In the script, `console` and
    /// `results` are the serial ports, and `sent` is a file.
    fn new(sent: &[u8], does: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name);
        // The smallest image that passes as a bzImage: boot.rst.
        let mut image = vec![0; 0x400 + 4096];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&(4096_u32 / 16).to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x80;
        image[0x280..0x280 + RELEASE.len()].copy_from_slice(RELEASE.as_bytes());
        fs::write(file("bzImage"), image).expect("a file");
        fs::write(file("sent"), sent).expect("a file");
        let script = format!(
            "#!/bin/sh
            [ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.0' && exit
            for word; do case $word in
                file,id=console,*) console=${{word##*path=}} ;;
                file,id=results,*) results=${{word##*path=}} ;;
            esac; done
            sent={}
            echo Booting > \"$console\"
            {does}\n",
            file("sent").display()
        );
        fs::create_dir(file("bin")).expect("a directory");
        let program = file("bin").join("qemu-system-x86_64");
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        let path = format!("{}:{}", file("bin").display(), std::env::var("PATH").unwrap_or_default());
        Self { dir, path }
    }

    fn run(&self, options: &str) -> Command {
        let image = self.dir.path().join("bzImage");
        let mut command = faultlab(&format!("run {SHORT} --kernel {} {options}", image.display()));
        command.env("PATH", &self.path);
        command
    }
}

/// The message of a run whose guest reports this and powers off.
fn run(reports: &[Report], options: &str) -> Answer {
    let sent = reports.iter().flat_map(|r| sent(&serde_json::to_vec(r).expect("JSON"))).collect::<Vec<_>>();
    answer(&mut Machine::new(&sent, "exec cat $sent > $results").run(options))
}

fn sent(body: &[u8]) -> Vec<u8> {
    Frame::new(REPORT, body).encode()
}

fn booted() -> Report {
    Report::Booted { release: RELEASE.into() }
}

fn ended(outcome: Outcome) -> Report {
    Report::Outcome(Box::new(outcome))
}

fn short() -> &'static Scenario {
    CATALOGUE.find(SHORT).expect("it is in the catalogue")
}

/// The outcome that an honest guest reports, with the reviewed cells.
fn reviewed() -> Outcome {
    let scenario = short();
    let era = scenario.eras[0].name;
    let text = (CATALOGUE.snapshots)(&format!("{SHORT}@{era}")).expect("a snapshot");
    let table = snapshot::read(text).expect("a snapshot");
    let arms = scenario.arms().into_iter().map(|arm| {
        let cells = table.cells.0.iter();
        let cells = cells.filter_map(|(row, cells)| Some((row.clone(), cells.get(arm.name)?.clone())));
        ArmOutcome {
            change: arm.change.into(),
            observations: Map(cells.collect()),
            ..ArmOutcome::new(arm.name, arm.kind)
        }
    });
    Outcome {
        scenario: SHORT.into(),
        kernel: RELEASE.into(),
        kernel_id: None,
        machine: outcome::Machine::Vm,
        clock: Clock::Virtual,
        era: Some(era.into()),
        verdict: Verdict::Reproduced,
        expected: true,
        without_reference: false,
        reason: None,
        settings: Map::default(),
        symptom: scenario.symptom.row.into(),
        control_is_healthy: true,
        arms: arms.filter(|arm| !arm.observations.0.is_empty()).collect(),
        log: vec![],
        seconds: Seconds { wall: 1.0, virtual_time: Some(1.0), wire: None },
    }
}

/// The outcome that the run prints, and its exit status.
fn outcome(answer: &Answer) -> (Option<i32>, Value) {
    let lines: Vec<_> = answer.out.lines().collect();
    let [line] = lines.as_slice() else { panic!("one outcome: {lines:?} {}", answer.err) };
    (answer.status, serde_json::from_str(line).expect("JSON"))
}

/// The reason why the run rejects the guest's report.
fn refused(reports: &[Report]) -> String {
    let answer = run(reports, "--json");
    let (status, outcome) = outcome(&answer);
    let told = (&outcome["scenario"], &outcome["verdict"], &outcome["expected"]);
    assert_eq!(
        (status, told),
        (Some(1), (&SHORT.into(), &"failed".into(), &false.into())),
        "{outcome}{}",
        answer.err
    );
    assert_eq!(outcome["arms"], Value::Array(vec![]));
    // `git bisect` must skip a kernel without a verdict.
    assert_eq!(run(reports, "--bisect").status, Some(125));
    outcome["reason"].as_str().expect("a reason").to_owned()
}

fn an_answer_is_judged_by_the_lab() {
    let mut lies = reviewed();
    lies.kernel = "9.9".into();
    lies.machine = outcome::Machine::Here;
    lies.clock = Clock::Real;
    lies.verdict = Verdict::Immune;
    lies.expected = false;
    lies.reason = Some("a reason".into());
    lies.control_is_healthy = false;
    lies.arms[0].change = "another change".into();
    lies.arms[1].symptom = Some(false);
    lies.seconds.wall = 1e8;
    let arms = lies.arms.iter().map(|arm| Report::ArmEnded(arm.name.clone())).collect::<Vec<_>>();
    let reports: Vec<_> = [booted()].into_iter().chain(arms).chain([ended(lies)]).collect();
    let (status, outcome) = outcome(&run(&reports, "--json"));
    let expected = reviewed();
    let mut printed: Outcome = serde_json::from_value(outcome).expect("an outcome");
    assert!(printed.seconds.wall < 1e6);
    printed.seconds.wall = 1.0;
    let [control, fault] = [&printed.arms[0], &printed.arms[1]].map(|arm| arm.symptom);
    assert_eq!((control, fault), (Some(false), Some(true)));
    printed.arms.iter_mut().for_each(|arm| arm.symptom = None);
    printed.kernel_id = None;
    assert_eq!((status, printed), (Some(0), expected));
}

fn a_table_that_is_not_as_reviewed_is_not_expected_whatever_the_guest_says() {
    let mut other = reviewed();
    other.arms[1].observations.insert("a row of its own", "a cell".to_owned());
    let (status, told) = outcome(&run(&[booted(), ended(other)], "--json"));
    assert_eq!((status, &told["expected"]), (Some(1), &false.into()));
    assert!(
        told["reason"].as_str().is_some_and(|r| r.contains("which the snapshot does not have")),
        "{told}"
    );

    let mut sick = reviewed();
    let healthy = sick.arms[0].observations.clone();
    sick.arms[1].observations = healthy;
    let answer = run(&[booted(), ended(sick)], "--json");
    let (status, told) = outcome(&answer);
    assert_eq!((status, &told["verdict"], &told["expected"]), (Some(1), &"failed".into(), &false.into()));
}

fn an_answer_to_another_question_is_no_answer() {
    let mut other = reviewed();
    other.scenario = "keepalive-dead-peer".into();
    let reason = refused(&[booted(), ended(other)]);
    assert!(
        reason.contains(&format!("an outcome of \"keepalive-dead-peer\", and was asked for {SHORT}")),
        "{reason}"
    );
    let mut unknown = reviewed();
    unknown.scenario = "x".repeat(1 << 16).into();
    let reason = refused(&[booted(), ended(unknown)]);
    assert!(reason.len() < 1000, "{reason}");
}

fn one_question_has_one_answer() {
    let five = [reviewed(), reviewed(), reviewed(), reviewed(), reviewed()].map(ended);
    let reports: Vec<_> = [booted()].into_iter().chain(five).collect();
    let reason = refused(&reports);
    assert!(reason.contains("after its last answer"), "{reason}");
}

fn a_report_that_nobody_asked_for_ends_the_guest() {
    let arm = |name: &str| Report::ArmEnded(name.into());
    for (reports, why) in [
        (vec![arm("control")], "the end of the arm \"control\" before it had booted"),
        (vec![booted(), booted()], "twice that it has booted"),
        (vec![booted(), arm("nowhere")], "the end of the arm \"nowhere\", which"),
        (vec![booted(), arm("fault"), arm("fault")], "the end of the arm \"fault\", which"),
        (vec![booted(), Report::Abilities(vec![])], "what it can do, and was asked for"),
        (vec![booted(), Report::ShellBegins], "that its shell begins, and was asked for"),
        (vec![booted(), Report::Left(0)], "the end of a shell with status 0, and was asked for"),
        (vec![booted(), Report::Failed("a".into()), arm("fault")], "after it had given up"),
        (vec![booted(), ended(reviewed()), Report::Failed("late".into())], "\"late\" after its last answer"),
    ] {
        // If the guest has not booted, the run ends without an outcome.
        let reason = match &reports[0] {
            Report::Booted { .. } => refused(&reports),
            _ => run(&reports, "--json").err,
        };
        assert!(reason.contains(why), "{reason}");
    }
    let machine = Machine::new(&[sent(b"no JSON"), sent(b"{}")].concat(), "exec cat $sent > $results");
    let told = answer(&mut machine.run(""));
    assert!(told.err.contains("it sent what is no report"), "{}", told.err);
}

fn an_outcome_of_other_arms_or_settings_is_not_believed() {
    type Lie = (fn(&mut Outcome), &'static str);
    let lies: [Lie; 8] = [
        (|o| o.arms[1].name = "nowhere".into(), "its arm \"nowhere\" was not asked for"),
        (|o| o.arms[1] = o.arms[0].clone(), "its arm \"control\" was not asked for, or comes twice"),
        (|o| o.settings.insert("minutes", "5".to_owned()), "it has other settings"),
        (|o| o.era = Some("dream".into()), "it has no era \"dream\""),
        (|o| o.era = None, "it has arms and no era"),
        (|o| o.symptom = "sleeps".into(), "its symptom is not \"sleeps\""),
        (|o| o.arms.clear(), "it has neither arms nor a reason"),
        (|o| o.seconds.virtual_time = Some(-1.0), "took a time that cannot be"),
    ];
    for (lie, why) in lies {
        let mut outcome = reviewed();
        outcome.verdict = Verdict::Failed;
        lie(&mut outcome);
        let reason = refused(&[booted(), ended(outcome)]);
        assert!(reason.contains(why), "{why}: {reason}");
    }
}

fn an_outcome_without_bounds_is_not_believed() {
    let mut wide = reviewed();
    let arm = wide.arms[0].clone();
    wide.arms.extend((0..5000).map(|n| ArmOutcome { name: format!("arm {n}").into(), ..arm.clone() }));
    let reason = refused(&[booted(), ended(wide)]);
    assert!(reason.contains("it sent a report of "), "{reason}");
    let mut long = reviewed();
    (0..300).for_each(|n| long.arms[0].observations.insert(format!("row {n}"), "x".to_owned()));
    let reason = refused(&[booted(), ended(long)]);
    assert!(reason.contains("more than 256 entries"), "{reason}");
}

fn heads_without_bodies_end_the_guest() {
    // 17 MiB, and every header claims all the bytes that follow.
    let mut head = Frame::new(REPORT, vec![0; 16 << 20]).encode();
    head.truncate(13);
    let mut flood = sent(&serde_json::to_vec(&booted()).expect("JSON"));
    flood.extend(head.repeat((17 << 20) / head.len()));
    let told = answer(&mut Machine::new(&flood, "exec cat $sent $sent $sent > $results").run("--json"));
    let (status, outcome) = outcome(&told);
    assert_eq!((status, &outcome["verdict"]), (Some(1), &"failed".into()));
    let reason = outcome["reason"].as_str().expect("a reason");
    assert!(reason.contains("its second serial port is for reports"), "{reason}");
}

fn a_signal_ends_a_run_whose_guest_floods_it() {
    let boot = sent(&serde_json::to_vec(&booted()).expect("JSON"));
    // `exec`, so that the flood ends with QEMU's process.
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let machine = Machine::new(&boot, "cat $sent > $results; exec yes > $console");
        let mut command = machine.run("");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut session = Session::start(&mut command);
        let begun = Instant::now();
        while !session.processes().iter().any(|process| process.contains("(yes)"))
            && begun.elapsed() < PATIENCE
        {
            thread::sleep(Duration::from_millis(5));
        }
        session.signal(signal);
        assert_eq!(session.status(), Some(status));
        session.gone(Instant::now());
    }
}

fn ctrl_c_prints_what_a_guest_has_finished() {
    let reports = [booted(), ended(reviewed())];
    let sent: Vec<u8> = reports.iter().flat_map(|r| sent(&serde_json::to_vec(r).expect("JSON"))).collect();
    let machine = Machine::new(&sent, "cat $sent > $results; exec sleep 1000");
    let file = |name: &str| machine.dir.path().join(name);
    for (format, printed) in [("", "\nconntrack-beyond-window-reset  "), ("--json", "{\"scenario\":\"")] {
        let mut terminal = Terminal::new();
        let mut command = machine.run(&format!("keepalive-dead-peer {format} --console"));
        command.arg(file("console")).arg("--junit").arg(file("junit.xml"));
        let results = fs::File::create(file("results")).expect("a file");
        command.stdin(terminal.side()).stdout(results).stderr(terminal.side());
        let mut session = Session::start(&mut command);
        drop(command);
        terminal.wait_for("1/2 scenarios");
        terminal.interrupt();
        assert_eq!(session.status(), Some(130));
        session.gone(Instant::now());
        let results = fs::read_to_string(file("results")).expect("a file");
        assert!(format!("\n{results}").contains(printed), "{results}");
        let said = terminal.text();
        let sentence = "faultlab: interrupted: 1 of 2 were not run to the end: keepalive-dead-peer on ";
        assert!(said.contains(sentence), "{said}");
        let console = fs::read_dir(file("console")).expect("a directory").flatten().next().expect("a file");
        assert_eq!(fs::read_to_string(console.path()).expect("a file"), "Booting\n");
        let junit = fs::read_to_string(file("junit.xml")).expect("a file");
        assert!(junit.contains(SHORT) && junit.contains("not run: interrupted"), "{junit}");
    }
}

fn a_guest_that_reports_nothing_is_told_of_by_its_console() {
    let boot = sent(&serde_json::to_vec(&booted()).expect("JSON"));
    let told = answer(&mut Machine::new(&boot, "cat $sent > $results; echo bye > $console").run("--json"));
    let (_, outcome) = outcome(&told);
    let reason = outcome["reason"].as_str().expect("a reason");
    assert!(reason.ends_with("the guest ended without an outcome\nBooting\nbye"), "{reason}");
}

fn a_qemu_that_fails_is_quoted() {
    let boot = sent(&serde_json::to_vec(&booted()).expect("JSON"));
    let fails = "cat $sent > $results; echo bye > $console; echo 'no such device' >&2; exit 3";
    let (_, outcome) = outcome(&answer(&mut Machine::new(&boot, fails).run("--json")));
    let reason = outcome["reason"].as_str().expect("a reason");
    assert!(reason.ends_with("exit status: 3: no such device\nBooting\nbye"), "{reason}");
}

fn scenarios_on_a_kernel_are_counted_as_scenarios() {
    let boot = sent(&serde_json::to_vec(&booted()).expect("JSON"));
    let mut terminal = Terminal::new();
    let machine = Machine::new(&boot, "cat $sent > $results; exec sleep 1000");
    let mut command = machine.run("");
    command.stdin(terminal.side()).stdout(Stdio::null()).stderr(terminal.side());
    let mut session = Session::start(&mut command);
    terminal.wait_for("0/1 scenarios");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.status(), Some(143));
    session.gone(Instant::now());
}
