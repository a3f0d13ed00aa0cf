//! A user of faultlab, who types commands and interrupts them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use faultlab_testkit::{Answer, Session, Terminal, answer, command, leave_out};
use serde_json::{Value, json};

/// How long a process may outlive the one that started it, on a very busy
/// machine; on an idle one it takes a tenth of this. The hang that a test
/// interrupts would last more than twice as long.
pub const SOON: Duration = Duration::from_secs(5);

/// The program under test: the one that cargo built with the tests, or the one
/// in FAULTLAB_PROGRAM. Guests of an optimised one take less time.
pub fn program() -> PathBuf {
    std::env::var_os("FAULTLAB_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_faultlab").into(), PathBuf::from)
}

/// `faultlab` with these arguments, separated by spaces. The user's settings do
/// not apply.
pub fn faultlab(line: &str) -> Command {
    command::command(program(), line)
}

/// Runs a command line and waits for its end.
pub fn ask(line: &str) -> Answer {
    answer(&mut faultlab(line))
}

/// An outcome without its evidence: the verdict, whether it is expected, and
/// the cells of each arm.
pub fn without_evidence(outcome: &Value) -> Value {
    let arms = outcome["arms"].as_array().expect("a list").iter();
    let met = |arm: &Value| json!([arm["name"], arm["observations"], arm["unseen"]]);
    json!([outcome["scenario"], outcome["verdict"], outcome["expected"], arms.map(met).collect::<Vec<_>>()])
}

/// Skips the test if scenarios cannot run here.
pub fn needs_namespaces() {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let doctor = ask("doctor");
        (doctor.status != Some(0)).then(|| format!("{}{}", doctor.out, doctor.err))
    });
    if let Some(why) = missing {
        leave_out(why);
    }
}

/// `faultlab run veth-teardown-hang`, once the hang has begun: the control's
/// arm has ended, and nothing else happens until the kernel's warning ten
/// seconds later.
pub fn in_the_hang(terminal: &mut Terminal) -> Session {
    let mut command = faultlab("run veth-teardown-hang");
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let session = Session::start(&mut command);
    terminal.wait_for("1/5 arms");
    assert!(session.processes().len() >= 3, "faultlab and the worker's two: {:?}", session.processes());
    session
}

/// The shortest scenario: it depends on no kernel timer.
pub const SHORT: &str = "conntrack-beyond-window-reset";

/// The message for a wrong command line: status 2, and nothing on stdout.
pub fn refusal(line: &str) -> String {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, out.as_str()), (Some(2), ""), "{line}: {err}");
    err
}

/// Every line of stdout, parsed as JSON.
pub fn json(line: &str) -> Vec<Value> {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{line}");
    out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}"))).collect()
}

pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Sequences that would clear the screen, start a new line, and change the text
/// direction.
pub const HOSTILE: &str = "x\x1b[2J\nfaultlab: all as expected\r\u{9b}1m\u{202e}";

/// Asserts that the text has no control characters, and that no line begins as
/// one in [`HOSTILE`] does.
pub fn is_clean(text: &str) {
    let raw = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!text.contains(raw), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("faultlab: all")), "{text}");
}
