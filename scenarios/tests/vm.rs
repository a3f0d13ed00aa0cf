//! Kernels in virtual machines, as a user runs them: identical bytes in
//! repeated runs, nothing left behind, bisections, and the matrix.
//!
//! Boots the oldest and the newest kernels of the store (`faultlab kernel
//! list`).

#[allow(dead_code, reason = "not all of it is used here")]
mod stored;
#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use faultlab_testkit::{Answer, PATIENCE, Session, answer, leave_out};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use serde_json::Value;

use stored::{CHANGED, Home, Stored, broken_kernel, kernels, newest, run, two};
use user::{SHORT, SOON, faultlab, without_evidence};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    a_seed_gives_the_same_bytes_on_a_busy_machine,
    who_looks_on_changes_nothing,
    a_bisection_finds_the_kernel_that_changed,
    shards_merge_into_the_matrix,
    nothing_is_left_of_a_killed_run,
    an_interrupted_run_leaves_nothing,
];

fn outcomes(json: &str) -> Vec<Value> {
    json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

// ---- The same bytes

/// The output of a run: its JSON without wall-clock times, the console, and the
/// report and the captures by file name.
struct Bytes {
    json: String,
    console: Vec<u8>,
    told: BTreeMap<String, Vec<u8>>,
}

impl Bytes {
    fn of(kernel: &Stored, seed: u32) -> Self {
        let (console, told) = (Home::new(), Home::new());
        let line = format!(
            "run {SHORT} veth-teardown-hang --json --kernel {} --seed {seed} --console {} --report {to} --pcap {to}",
            kernel.id,
            console.path().display(),
            to = told.path().display(),
        );
        let Answer { status, out, err } = run(&line);
        assert_eq!(status, Some(0), "{line}: {out}{err}");
        let mut files = fs::read_dir(console.path()).expect("the directory").flatten();
        let file = files.next().expect("the console's file");
        assert!(files.next().is_none(), "one file for one kernel");
        let bytes = |file: fs::DirEntry| {
            let name = file.file_name().into_string().expect("UTF-8");
            (name, fs::read(file.path()).expect("a file"))
        };
        Self {
            json: without_wall(&out),
            console: fs::read(file.path()).expect("the console"),
            told: fs::read_dir(told.path()).expect("the directory").flatten().map(bytes).collect(),
        }
    }

    /// The verdicts and cells of the scenarios.
    fn shown(&self) -> Vec<(Value, Value, Vec<Value>)> {
        let shown = |outcome: &Value| {
            let arms = outcome["arms"].as_array().expect("arms");
            let cells = arms.iter().map(|arm| arm["observations"].clone()).collect();
            (outcome["scenario"].clone(), outcome["verdict"].clone(), cells)
        };
        outcomes(&self.json).iter().map(shown).collect()
    }
}

/// The JSON with null for every wall-clock time, and otherwise unchanged.
fn without_wall(json: &str) -> String {
    let mut parts = json.split("\"wall\":");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("\"wall\":null");
        text.push_str(&part[part.find([',', '}']).expect("the number's end")..]);
    }
    text
}

fn a_seed_gives_the_same_bytes_on_a_busy_machine() {
    let kernel = newest();
    let first = Bytes::of(&kernel, 1);
    let done = AtomicBool::new(false);
    let again = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // In a separate thread: if it panics, the busy threads still end.
        let again = scope.spawn(|| Bytes::of(&kernel, 1)).join();
        done.store(true, Ordering::Relaxed);
        again
    });
    let again = again.expect("the run on a busy machine");
    assert_eq!(first.json, again.json);
    assert!(first.console == again.console, "the consoles differ");
    assert!(first.told.contains_key("index.html") && first.told.len() > 1);
    for (file, bytes) in &first.told {
        assert!(again.told.get(file) == Some(bytes), "{file} differs");
    }
    let other = Bytes::of(&kernel, 2);
    assert_eq!(first.shown(), other.shown());
    assert!(first.json != other.json, "another seed gave the same bytes");
}

// ---- Captures

fn who_looks_on_changes_nothing() {
    let all = kernels();
    let (Some(oldest), Some(newest)) = (all.first(), all.last()) else {
        leave_out("the store has no kernel")
    };
    for kernel in [oldest, newest] {
        let without = |options: &str| {
            let line = format!(
                "run {SHORT} {CHANGED} conntrack-table-full veth-teardown-hang --kernel {} --json {options}",
                kernel.id
            );
            let Answer { status, out, err } = run(&line);
            assert_eq!(status, Some(0), "{line}: {out}{err}");
            outcomes(&out).iter().map(without_evidence).collect::<Vec<_>>()
        };
        assert_eq!(without("--no-captures"), without("--why"), "{}", kernel.id);
    }
}

// ---- Nothing left

/// The CPU time of a QEMU that is booting: a boot takes seconds.
const BOOTS: Duration = Duration::from_millis(300);

/// A run of two guests, both stopped during their boots, so that neither ends
/// by itself.
fn two_guests(home: &Home) -> Session {
    let [old, new] = two();
    let line = format!("run {CHANGED} --jobs 2 --kernel {} --kernel {}", old.id, new.id);
    let mut command = faultlab(&line);
    command.env("TMPDIR", home.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let session = Session::start(&mut command);
    let begun = Instant::now();
    let mut stopped = BTreeSet::new();
    while stopped.len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "there are {:?}", session.processes());
        for guest in session.named("qemu-system") {
            let used = ClockId::pid_cpu_clock_id(guest).and_then(ClockId::now).map(Duration::from);
            if used.is_ok_and(|used| used > BOOTS) && stopped.insert(guest) {
                kill(guest, Signal::SIGSTOP).expect("it lives");
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    session
}

fn nothing_is_left_of_a_killed_run() {
    let home = Home::new();
    let mut session = two_guests(&home);
    session.signal(Signal::SIGKILL);
    let killed = Instant::now();
    assert_eq!(session.status(), None, "it was killed");
    let waited = session.gone(killed);
    assert!(waited < SOON, "a guest lived for {waited:?}");
    home.assert_empty();
}

fn an_interrupted_run_leaves_nothing() {
    let home = Home::new();
    let mut session = two_guests(&home);
    session.signal(Signal::SIGINT);
    let interrupted = Instant::now();
    assert_eq!(session.status(), Some(130));
    let waited = session.gone(interrupted);
    assert!(waited < SOON, "a guest lived for {waited:?}");
    home.assert_empty();
}

// ---- Bisections

fn git(repository: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(repository).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for side in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{side}_NAME"), "A Tester")
            .env(format!("GIT_{side}_EMAIL"), "tester@example.org");
    }
    git.stdin(Stdio::null());
    git
}

fn git_says(repository: &Path, line: &str) -> String {
    let Answer { status, out, err } = answer(git(repository).args(line.split_whitespace()));
    assert_eq!(status, Some(0), "git {line}: {out}{err}");
    out.trim().to_owned()
}

fn a_bisection_finds_the_kernel_that_changed() {
    let kernels = kernels();
    let (new, old): (Vec<_>, Vec<_>) = kernels.into_iter().partition(Stored::is_changed);
    let ([.., last_old], [first_new, more @ ..]) = (old.as_slice(), new.as_slice()) else {
        leave_out("the store has no kernel before 6.1 and one since");
    };
    if Command::new("git").arg("--version").output().is_err() {
        leave_out("git is missing");
    }
    let home = Home::new();
    let broken = home.path().join("broken");
    fs::write(&broken, broken_kernel()).expect("a file");
    let repository = home.path().join("linux");
    fs::create_dir(&repository).expect("a directory");
    git_says(&repository, "init -q");
    // The kernel that cannot be tested is next to the one that bisect tries
    // first.
    let mut history = vec![last_old.id.clone(), first_new.id.clone(), broken.display().to_string()];
    history.extend(more.iter().rev().take(2).rev().map(|k| k.id.clone()));
    let mut commits = vec![];
    for kernel in &history {
        fs::write(repository.join("KERNEL"), kernel).expect("a file");
        git_says(&repository, "add KERNEL");
        git_says(&repository, "commit -q -m kernel");
        commits.push(git_says(&repository, "rev-parse HEAD"));
    }
    if more.is_empty() {
        // The newest must be bad, and the broken kernel is neither good nor
        // bad.
        git_says(&repository, "checkout -q HEAD~1");
    }
    git_says(&repository, &format!("bisect start HEAD {}", commits[0]));
    let script = format!("\"$FAULTLAB\" run {CHANGED} --kernel \"$(cat KERNEL)\" --bisect=immune");
    let walk = answer(
        git(&repository).args(["bisect", "run", "sh", "-c", &script]).env("FAULTLAB", user::program()),
    );
    assert_eq!(walk.status, Some(0), "{history:?}: {}{}", walk.out, walk.err);
    assert_eq!(git_says(&repository, "rev-parse refs/bisect/bad"), commits[1], "{}", walk.out);
}

// ---- The matrix

fn shards_merge_into_the_matrix() {
    let [old, new] = two();
    let home = Home::new();
    let file = |name: &str| -> PathBuf { home.path().join(name) };
    let line = format!("run {CHANGED} {SHORT} --kernel {} --kernel {}", old.id, new.id);

    let whole = run(&line);
    assert_eq!(whole.status, Some(0), "{}{}", whole.out, whole.err);
    let head = whole.out.lines().next().unwrap_or_default();
    assert!(head.contains(&old.id) && head.contains(&new.id), "{}", whole.out);
    let words = whole.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let change = format!("{} -> {}, {CHANGED}: reproduced became immune;", old.id, new.id);
    assert!(words.contains(&change), "{}", whole.out);

    for part in ["1/2", "2/2"] {
        let shard = run(&format!("{line} --json --shard {part}"));
        assert_eq!((shard.status, shard.out.lines().count()), (Some(0), 2), "{}", shard.err);
        fs::write(file(&part.replace('/', "-")), shard.out).expect("a file");
    }
    // The names and the order of the files do not matter.
    let merged = run(&format!("merge {} {}", file("2-2").display(), file("1-2").display()));
    assert_eq!((merged.status, merged.out), (Some(0), whole.out), "{}", merged.err);
}
