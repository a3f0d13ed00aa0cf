//! A worker that was stopped (SIGSTOP) and continued plays again, because the kernel's
//! timers kept running while it was stopped.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use faultlab_testkit::{PATIENCE, Test, applicable, harness, reviewed, runtime};
use lab::Catalogue;
use lab::machine::here::Here;
use lab::machine::job::Job;
use lab::outcome::Verdict;
use lab::prelude::*;
use libtest_mimic::Arguments;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

faultlab_testkit::tests![or_worker: a_worker_that_was_stopped_plays_once_more];

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let arms = |_: &Environment| {
        let network = Topology::new().hosts(["one", "other"]).link("one 10.0.0.1/24", "other 10.0.0.2/24");
        Arms::control("counts no plays", network, Conduct { counts: false })
            .fault("counts them", |arm| arm.counts = true)
    };
    let scenario = Scenario::new(CARD, ("the plays", "1"), arms, play).needs([Need::Veth]);
    Catalogue::new(vec![scenario], |_| None)
});

/// Whether the plays are counted.
#[derive(Debug, Clone)]
struct Conduct {
    counts: bool,
}

const CARD: Card = Card::for_test("stopped", "A worker is stopped");

/// The first play of each arm waits until this process was stopped and continued. Both
/// arms then observe 1, so that nothing is reproduced.
async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    if started < 2 {
        let kind = SignalKind::from_raw(Signal::SIGCONT as i32);
        let mut continued = signal(kind).map_err(|e| Error::kernel("worker", "await SIGCONT", e))?;
        continued.recv().await;
    }
    stage.observe("the plays", if conduct.counts && started >= 2 { "2" } else { "1" });
    stage.because(format!("plays before this one: {started}"));
    Ok(())
}

fn or_worker(tests: &[Test]) -> ExitCode {
    reviewed::as_worker(&CATALOGUE).unwrap_or_else(|| harness::run(&Arguments::from_args(), tests, None))
}

/// The state of a process as in proc(5), and whether it handles SIGCONT.
fn status(process: u32) -> (String, bool) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_owned()
    };
    let handled = u64::from_str_radix(&field("SigCgt:"), 16).unwrap_or(0);
    (field("State:"), handled & 1 << (Signal::SIGCONT as i32 - 1) != 0)
}

/// The child processes of a process, of all its threads.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let text = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    text.flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Repeatedly stops and continues the worker's child processes that handle SIGCONT,
/// until `done`.
fn stop_and_continue(done: &AtomicBool) {
    // Pause longer each time: a process that is stopped too often makes no progress.
    let mut pause = Duration::from_millis(10);
    while !done.load(Ordering::Relaxed) {
        let workers = children(std::process::id());
        let below = workers.iter().flat_map(|worker| children(*worker));
        for process in below.filter(|process| status(*process).1) {
            let pid = Pid::from_raw(process.cast_signed());
            let begun = Instant::now();
            let _ = kill(pid, Signal::SIGSTOP);
            // Wait until it is gone or stopped.
            while Path::new(&format!("/proc/{process}")).exists()
                && !status(process).0.starts_with(['T', 'Z'])
            {
                assert!(begun.elapsed() < PATIENCE, "it is not stopped but {}", status(process).0);
                thread::sleep(Duration::from_millis(1));
            }
            let _ = kill(pid, Signal::SIGCONT);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn a_worker_that_was_stopped_plays_once_more() {
    let program = std::env::current_exe().expect("/proc/self/exe");
    let here = applicable(runtime().block_on(Here::find(&program))).here;
    let task = Job::run(CARD.name);
    let done = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| stop_and_continue(&done));
        let outcome = runtime().block_on(here.run(task, &mut |_| {}));
        done.store(true, Ordering::Relaxed);
        outcome.expect("an outcome")
    });
    // Counted by the fault arm in the second play.
    assert_eq!(outcome.verdict, Verdict::Reproduced, "{:?}", outcome.reason);
}
