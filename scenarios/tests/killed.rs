//! faultlab is killed by SIGKILL at a random moment, and its processes end soon
//! after. The test prints how soon; on an idle machine it is less than a
//! second.
//!
//! FAULTLAB_ROUNDS sets how often it is killed, by default 12 times.
//! FAULTLAB_SEED repeats the moments of an earlier run.

mod machine;
#[allow(dead_code, reason = "nobody reads or types here")]
mod user;

use std::env;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use faultlab_testkit::{PATIENCE, Session, Terminal};
use nix::sys::signal::Signal;

use machine::Machine;
use user::{SOON, faultlab, in_the_hang, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::one_at_a_time:
    nothing_is_left_of_a_killed_run,
    a_hang_ends_with_its_killed_starter,
    nothing_is_left_of_a_shell,
];

/// The latest moment to kill it, in ms. All scenarios take about 11 s, and most
/// of what happens is in the first three.
const LATEST: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// A pseudorandom number: splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A unique environment variable, by which the processes of one run are found.
fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("FAULTLAB_KILLED={}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn nothing_is_left_of_a_killed_run() {
    needs_namespaces();
    let rounds = number("FAULTLAB_ROUNDS").unwrap_or(12);
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut seed = number("FAULTLAB_SEED").unwrap_or_else(clock);
    println!("{rounds} rounds, FAULTLAB_SEED={seed}");
    let home = tempfile::tempdir().expect("a directory");
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        let moment = Duration::from_millis(next(&mut seed) % LATEST);
        let mark = mark();
        let before = Machine::look(&mark);
        let mut command = faultlab("run");
        let (name, value) = mark.split_once('=').expect("NAME=value");
        command.env(name, value);
        for variable in
            ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"]
        {
            command.env(variable, home.path());
        }
        command.current_dir(home.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut session = Session::start(&mut command);
        thread::sleep(moment);
        session.signal(Signal::SIGKILL);
        let killed = Instant::now();
        assert_eq!(session.status(), None, "it was killed");
        let waited = session.gone(killed);
        longest = longest.max(waited);
        let mut changes = before.changes();
        while !changes.is_empty() && killed.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            changes = before.changes();
        }
        assert!(changes.is_empty(), "round {round}, killed after {moment:?}: {}", changes.join("; "));
        let files: Vec<_> = std::fs::read_dir(home.path()).expect("the directory").flatten().collect();
        assert!(files.is_empty(), "round {round}, killed after {moment:?}: {files:?}");
    }
    println!("the last process ended {} ms after its starter at the latest", longest.as_millis());
}

fn a_hang_ends_with_its_killed_starter() {
    needs_namespaces();
    let before = Machine::look(&mark());
    let mut terminal = Terminal::new();
    let mut session = in_the_hang(&mut terminal);
    session.signal(Signal::SIGKILL);
    let killed = Instant::now();
    assert_eq!(session.status(), None, "it was killed");
    let waited = session.gone(killed);
    assert!(waited < SOON, "{waited:?}");
    println!("the last process ended {} ms after its starter", waited.as_millis());
    assert_eq!(before.changes(), Vec::<String>::new());
}

fn nothing_is_left_of_a_shell() {
    needs_namespaces();
    for killed in [false, true] {
        let mark = mark();
        let before = Machine::look(&mark);
        let mut terminal = Terminal::new();
        let mut command = faultlab("shell conntrack-beyond-window-reset");
        let (name, value) = mark.split_once('=').expect("NAME=value");
        command.env(name, value);
        command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
        let mut session = Session::start(command.env("SHELL", "/bin/sh"));
        terminal.wait_for("fault) $ ");
        // Without the cleanup, this process would outlive the shell.
        terminal.type_line("setsid sleep 1000 & echo st''arted");
        terminal.wait_for("started");
        let status = if killed {
            session.signal(Signal::SIGKILL);
            None
        } else {
            terminal.type_line("exit 3");
            Some(3)
        };
        assert_eq!(session.status(), status);
        let ended = Instant::now();
        let waited = session.gone(ended);
        assert!(waited < SOON, "{waited:?}");
        let mut changes = before.changes();
        while !changes.is_empty() && ended.elapsed() < SOON {
            thread::sleep(Duration::from_millis(20));
            changes = before.changes();
        }
        assert!(changes.is_empty(), "killed: {killed}: {}", changes.join("; "));
    }
}
