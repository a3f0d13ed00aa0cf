//! Kernels in virtual machines, as a user runs them: the same bytes again,
//! nothing left behind, bisections, errors, and the matrix.
//!
//! Boots the oldest and the newest kernels of the store (`faultlab kernel
//! list`).

#[path = "../../lab/tests/common/frame.rs"]
mod frame;
#[allow(dead_code, reason = "not all of it is used here")]
mod user;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::machine::vm::module::Module;
use lab::machine::vm::modules::WANTED;
use lab::machine::vm::tools;
use lab::machine::vm::{Qemu, Store};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use frame::leave_out;
use user::{Answer, PATIENCE, SOON, Session, Terminal, answer, ask, faultlab, without_evidence};

frame::tests![user::two_at_a_time:
    a_seed_gives_the_same_bytes_on_a_busy_machine,
    who_looks_on_changes_nothing,
    a_bisection_finds_the_kernel_that_changed,
    shards_merge_into_the_matrix,
    nothing_is_left_of_a_killed_run,
    an_interrupted_run_leaves_nothing,
    a_shell_in_a_guest_has_the_terminal,
    an_exercise_has_a_kernel_of_its_own,
    a_shell_in_a_guest_needs_a_static_busybox,
    what_is_no_kernel_is_one_sentence,
    a_qemu_that_is_missing_or_old_is_one_sentence,
    a_bisection_is_told_what_it_cannot_judge,
    a_kernel_that_never_boots_fails_beside_one_that_does,
    a_panic_is_quoted,
    a_module_that_does_not_load_is_named,
    a_kernel_without_a_serial_port_is_one_sentence,
];

/// The shortest scenario.
const SHORT: &str = "conntrack-beyond-window-reset";
/// Reproduced up to 6.0, and not since.
const CHANGED: &str = "conntrack-delayed-segment-reset";

/// A kernel of the store.
#[derive(Debug, Clone)]
struct Stored {
    id: String,
    /// The numbers of its release, to count by: 5.10 before 6.1.
    version: Vec<u32>,
}

impl Stored {
    fn is_changed(&self) -> bool {
        self.version >= vec![6, 1]
    }
}

/// The kernels of the store, oldest first and each release once.
fn kernels() -> Vec<Stored> {
    if let Err(missing) = Qemu::find() {
        leave_out(missing.to_string());
    }
    let list = ask("kernel list --json");
    assert_eq!(list.status, Some(0), "{}", list.err);
    let stored = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let release = entry["release"].as_str().expect("a release");
        let numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
        Stored { id: entry["id"].as_str().expect("an id").to_owned(), version: numbers.collect() }
    };
    let mut kernels: Vec<_> = list.out.lines().map(stored).collect();
    kernels.sort_by(|a, b| (&a.version, &a.id).cmp(&(&b.version, &b.id)));
    kernels.dedup_by(|a, b| a.version == b.version);
    kernels
}

fn newest() -> Stored {
    let why = "the store has no kernel; `faultlab kernel add debian:bookworm` fetches one";
    kernels().pop().unwrap_or_else(|| leave_out(why))
}

/// The oldest and the newest kernel, between which [`CHANGED`] changed.
fn two() -> [Stored; 2] {
    let kernels = kernels();
    match (kernels.first(), kernels.last()) {
        (Some(old), Some(new)) if !old.is_changed() && new.is_changed() => [old.clone(), new.clone()],
        _ => {
            leave_out("the store has no kernel before 6.1 and one since; `faultlab kernel add` fetches them")
        }
    }
}

/// `faultlab` with these arguments and a directory of its own for temporary
/// files, which stays empty.
fn run(line: &str) -> Answer {
    let home = Home::new();
    let done = answer(faultlab(line).env("TMPDIR", home.path()));
    home.assert_empty();
    done
}

fn outcomes(json: &str) -> Vec<Value> {
    json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Where temporary files would go.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn assert_empty(&self) {
        let files: Vec<_> = fs::read_dir(self.path()).expect("the directory").flatten().collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

// ---- The same bytes

/// What a run gave: its JSON without the seconds on the wall, the console, and
/// the report and the captures by their files' names.
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

    /// What the scenarios showed.
    fn shown(&self) -> Vec<(Value, Value, Vec<Value>)> {
        let shown = |outcome: &Value| {
            let arms = outcome["arms"].as_array().expect("arms");
            let cells = arms.iter().map(|arm| arm["observations"].clone()).collect();
            (outcome["scenario"].clone(), outcome["verdict"].clone(), cells)
        };
        outcomes(&self.json).iter().map(shown).collect()
    }
}

/// The JSON with null for every number of seconds on the wall, and no other
/// byte changed.
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
        // A thread of its own, so that the others end even if it panics.
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

/// A run of two guests, both of which are there.
fn two_guests(home: &Home) -> Session {
    let [old, new] = two();
    let line = format!("run {CHANGED} --jobs 2 --kernel {} --kernel {}", old.id, new.id);
    let mut command = faultlab(&line);
    command.env("TMPDIR", home.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let session = Session::start(&mut command);
    let begun = Instant::now();
    let guests = || session.processes().iter().filter(|p| p.contains("qemu-system")).count();
    while guests() < 2 {
        assert!(begun.elapsed() < PATIENCE, "there are {:?}", session.processes());
        thread::sleep(Duration::from_millis(5));
    }
    // Into the middle of their boots.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(guests(), 2, "a boot takes longer");
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
    // One that cannot be judged lies beside the first that is searched.
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
        // The newest must be bad, and the broken one says nothing.
        git_says(&repository, "checkout -q HEAD~1");
    }
    git_says(&repository, &format!("bisect start HEAD {}", commits[0]));
    let script = format!("\"$FAULTLAB\" run {CHANGED} --kernel \"$(cat KERNEL)\" --bisect=immune");
    let walk = answer(
        git(&repository)
            .args(["bisect", "run", "sh", "-c", &script])
            .env("FAULTLAB", env!("CARGO_BIN_EXE_faultlab")),
    );
    assert_eq!(walk.status, Some(0), "{history:?}: {}{}", walk.out, walk.err);
    assert_eq!(git_says(&repository, "rev-parse refs/bisect/bad"), commits[1], "{}", walk.out);
}

fn a_bisection_is_told_what_it_cannot_judge() {
    let home = Home::new();
    let broken = home.path().join("broken");
    fs::write(&broken, broken_kernel()).expect("a file");
    for kernel in
        ["no-such-kernel", "/dev/null", &newest().id.replace(':', "_"), broken.to_str().expect("UTF-8")]
    {
        let Answer { status, out, err } = run(&format!("run {SHORT} --kernel {kernel} --bisect"));
        assert_eq!(status, Some(125), "{kernel}: {out}{err}");
        assert_ne!(out + &err, "", "{kernel}");
    }
    let unknown = run("run no-such-scenario --kernel no-such-kernel --bisect");
    assert_eq!(unknown.status, Some(125), "{}", unknown.err);
}

// ---- Errors

/// What is said where no guest can be started: status 69, and nothing on
/// stdout.
fn refusal(command: &mut Command) -> String {
    let home = Home::new();
    let Answer { status, out, err } = answer(command.env("TMPDIR", home.path()));
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert_eq!(err.lines().count(), 1, "one sentence: {err}");
    assert!(err.starts_with("faultlab: "), "{err}");
    home.assert_empty();
    err
}

/// A bzImage by its header, and instructions that no processor has: three
/// faults, and the machine resets.
fn broken_kernel() -> Vec<u8> {
    let store = Store::open().expect("the store");
    let kernel = store.get(&newest().id).expect("the kernel");
    let mut image = fs::read(kernel.image).expect("the image");
    // boot.rst: setup_sects, and the boot sector itself.
    let code = (usize::from(image[0x1f1]) + 1) * 512;
    image[code..].chunks_exact_mut(2).for_each(|ud2| ud2.copy_from_slice(&[0x0f, 0x0b]));
    image
}

/// A shell in a guest at a terminal, as soon as it prompts.
fn at_a_guest(terminal: &mut Terminal, line: &str, prompt: &str) -> Session {
    let kernel = newest().id;
    if let Err(missing) = tools::busybox() {
        leave_out(missing.to_string());
    }
    let mut command = faultlab(&format!("shell {line} --kernel {kernel}"));
    command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
    let session = Session::start(&mut command);
    terminal.wait_for(&format!("({prompt}) $ "));
    session
}

fn a_shell_in_a_guest_has_the_terminal() {
    let mut terminal = Terminal::new();
    let mut session = at_a_guest(&mut terminal, SHORT, &format!("{SHORT} fault"));
    terminal.type_line("sh -c 'echo be\"\"gun; exec sleep 1000'");
    terminal.wait_for("begun");
    terminal.interrupt();
    terminal.type_line("echo st''ill $FAULTLAB_ARM; stty size");
    terminal.wait_for("still fault\r\n24 100");
    terminal.type_line("exit 3");
    assert_eq!(session.status(), Some(3));
    session.gone(Instant::now());

    let mut terminal = Terminal::new();
    let mut session = at_a_guest(&mut terminal, SHORT, &format!("{SHORT} fault"));
    terminal.press(b"\x1d");
    assert_eq!(session.status(), Some(130));
    session.gone(Instant::now());
}

fn an_exercise_has_a_kernel_of_its_own() {
    let mut terminal = Terminal::new();
    let mut session = at_a_guest(&mut terminal, "rtnl-stall --exercise", "rtnl-stall exercise");
    // Who asks waits too, and cannot be given up: what is typed next must not.
    terminal.type_line("nsenter --net=/run/netns/node ip link set lo down & check");
    terminal.wait_for("Not solved, 1 attempt and 0 hints: add a link: waits");
    terminal.type_line("kill $(grep -l ^rtnl-holder /proc/[0-9]*/comm | cut -d/ -f3); check");
    terminal.wait_for("Solved, 2 attempts and 0 hints: add a link: works");
    terminal.type_line("exit 3");
    assert_eq!(session.status(), Some(3));
    session.gone(Instant::now());
}

fn a_shell_in_a_guest_needs_a_static_busybox() {
    let kernel = newest().id;
    let place = tempfile::tempdir().expect("a directory");
    let found = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let qemu =
        found.into_iter().flatten().map(|dir| dir.join("qemu-system-x86_64")).find(|file| file.exists());
    symlink(qemu.expect("a QEMU was found before"), place.path().join("qemu-system-x86_64")).expect("a link");
    let mut command = faultlab(&format!("shell {SHORT} --kernel {kernel}"));
    let Answer { status, out, err } = answer(command.env("PATH", place.path()));
    assert_eq!((status, out.as_str()), (Some(69), ""));
    assert!(
        err.contains("static busybox") && err.contains("busybox-static") && err.lines().count() == 1,
        "{err}"
    );
}

fn what_is_no_kernel_is_one_sentence() {
    let home = Home::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    let refused = |kernel: &str| refusal(&mut faultlab(&format!("run {SHORT} --kernel {kernel}")));
    assert!(refused("no-such-kernel").contains("kernel no-such-kernel is missing"));
    let text = file("text", b"no kernel at all\n");
    assert!(refused(&text).contains("text is no bzImage: it has no HdrS at 0x202"), "{}", refused(&text));
    let whole = broken_kernel();
    let cut = file("cut", &whole[..whole.len() / 2]);
    assert!(refused(&cut).contains("cut is no bzImage: it is cut short"), "{}", refused(&cut));
}

/// A directory with a program that is found in QEMU's place.
fn in_place_of_qemu(script: &str) -> (TempDir, String) {
    let bin = tempfile::tempdir().expect("a directory");
    let program = bin.path().join("qemu-system-x86_64");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
    (bin, path)
}

/// QEMU, with more words on the kernel command line.
fn with_words(words: &str) -> (TempDir, String) {
    let real = Qemu::find().unwrap_or_else(|missing| leave_out(missing.to_string()));
    in_place_of_qemu(&format!(
        "for word; do
           shift
           case $word in console=ttyS0*) word=\"$word {words}\" ;; esac
           set -- \"$@\" \"$word\"
         done
         exec {} \"$@\"",
        real.program().display()
    ))
}

fn a_qemu_that_is_missing_or_old_is_one_sentence() {
    let line = format!("run {SHORT} --kernel {}", newest().id);
    let empty = Home::new();
    let missing = refusal(faultlab(&line).env("PATH", empty.path()));
    assert!(missing.starts_with("faultlab: qemu-system-x86_64 is missing; install"), "{missing}");
    let (_bin, path) = in_place_of_qemu("echo 'QEMU emulator version 2.0.0'");
    let old = refusal(faultlab(&line).env("PATH", path));
    assert!(old.contains("(this is 2.0)"), "{old}");
}

fn a_kernel_that_never_boots_fails_beside_one_that_does() {
    let home = Home::new();
    let broken = home.path().join("broken");
    fs::write(&broken, broken_kernel()).expect("a file");
    let whole = newest().id;
    let junit = home.path().join("junit.xml");
    let line = format!(
        "run {SHORT} --kernel {} --kernel {whole} --ktap --junit {}",
        broken.display(),
        junit.display()
    );
    let Answer { status, out, err } = run(&line);
    assert_eq!(status, Some(1), "{out}{err}");
    let (reasons, rest): (Vec<_>, Vec<_>) = out.lines().partition(|line| line.starts_with("  # "));
    let [reason] = reasons.as_slice() else { panic!("{out}") };
    assert!(reason.contains("the guest"), "{reason}");
    let ktap = format!(
        "KTAP version 1\n1..2\n  KTAP version 1\n  1..1\n  not ok 1 {SHORT} # failed\nnot ok 1 {}\n  \
         KTAP version 1\n  1..1\n  ok 1 {SHORT} # reproduced\nok 2 {whole}",
        broken.display()
    );
    assert_eq!(rest.join("\n"), ktap);
    let report = fs::read_to_string(junit).expect("the report");
    let expected = ["testsuites", "testsuite", "testcase", "error", "testsuite", "testcase"];
    assert_eq!(elements(&report), expected, "{report}");
}

fn a_panic_is_quoted() {
    let line = format!("run {SHORT} --json --kernel {}", newest().id);
    // The same guest, but for the init that it shall find.
    let (_bin, path) = with_words("rdinit=/none init=/none");
    let home = Home::new();
    let Answer { status, out, err } = answer(faultlab(&line).env("PATH", path).env("TMPDIR", home.path()));
    home.assert_empty();
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert!(err.contains("Kernel panic - not syncing"), "{err}");
}

fn a_module_that_does_not_load_is_named() {
    let id = newest().id;
    let stored = Store::open().expect("the store").get(&id).expect("the kernel");
    let order = stored.modules().expect("its modules").load_order(WANTED).expect("the order");
    // As of an installed kernel: modules/RELEASE holds the image, too.
    let home = Home::new();
    let dir = home.path().join("modules").join(&stored.release);
    fs::create_dir_all(&dir).expect("a directory");
    fs::copy(&stored.image, dir.join("vmlinuz")).expect("the image");
    for Module { name, mut bytes, .. } in order.modules {
        if name == "veth" {
            // Built for another configuration of this release, says its vermagic.
            let at = bytes.windows(10).position(|w| w == b"mod_unload").expect("a word of its vermagic");
            bytes[at] = b'M';
        }
        fs::write(dir.join(format!("{name}.ko")), bytes).expect("a module");
    }
    let line = format!("run {SHORT} --kernel {}", dir.join("vmlinuz").display());
    let said = refusal(&mut faultlab(&line));
    assert!(said.contains("load the module veth: "), "{said}");
    assert_eq!(run(&(line + " --bisect")).status, Some(125));
}

fn a_kernel_without_a_serial_port_is_one_sentence() {
    let (_bin, path) = with_words("8250.nr_uarts=0");
    let said = refusal(faultlab(&format!("run {SHORT} --kernel {}", newest().id)).env("PATH", path));
    assert!(said.contains("CONFIG_SERIAL_8250_CONSOLE"), "{said}");
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
    // However they are named.
    let merged = run(&format!("merge {} {}", file("2-2").display(), file("1-2").display()));
    assert_eq!((merged.status, merged.out), (Some(0), whole.out), "{}", merged.err);
}

/// The names of an XML document's elements; every one of them ends where it
/// should.
fn elements(xml: &str) -> Vec<String> {
    let (mut all, mut open) = (vec![], vec![]);
    for tag in xml.split('<').skip(1) {
        let (tag, _text) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{xml}");
            continue;
        }
        all.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} never end: {xml}");
    all
}
