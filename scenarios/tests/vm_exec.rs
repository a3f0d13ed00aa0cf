//! Any command in a guest, as a user runs it.

#[allow(dead_code, reason = "not all of it is used here")]
mod stored;
#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use faultlab_testkit::{Answer, PATIENCE, Session, answer, leave_out};
use lab::machine::vm::tools;
use nix::sys::signal::Signal;
use serde_json::Value;

use stored::{Home, Stored, newest, two};
use user::{SOON, faultlab};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    a_command_has_its_own_output_and_status,
    days_pass_in_seconds_and_the_bytes_are_the_same,
    a_script_brings_its_network_along,
    what_a_command_lacks_is_named,
    a_command_ends_as_it_ended,
    a_limit_ends_what_does_not_end,
    nothing_outlives_a_command_and_its_files_come_back,
    a_panic_and_a_partial_root_have_their_own_sentences,
    kernels_are_compared,
    nothing_is_left_of_an_interrupted_command,
];

/// The newest kernel. Skips the test if commands cannot run in a guest.
fn kernel() -> Stored {
    if let Err(missing) = tools::busybox() {
        leave_out(missing.to_string());
    }
    newest()
}

/// `faultlab exec` on this kernel, with these options and this command.
fn exec(kernel: &Stored, options: &str, command: &[&str]) -> Answer {
    let home = Home::new();
    let line = format!("exec --kernel {} {options} --", kernel.id);
    let done = answer(faultlab(&line).args(command).env("TMPDIR", home.path()));
    home.assert_empty();
    done
}

/// The object that `--json` prints.
fn json(answer: &Answer) -> Value {
    assert_eq!(answer.out.lines().count(), 1, "{}{}", answer.out, answer.err);
    serde_json::from_str(&answer.out).expect("JSON")
}

/// A script in a directory of its own.
fn script(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a script.sh");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = path.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

fn a_command_has_its_own_output_and_status() {
    let kernel = kernel();
    let (dir, input) = script("from a file\n");
    let text = "#!/bin/bash
        echo $A \"$1\" $#; cat; echo err >&2; id -un; uname -n > /dev/null; pwd; echo $PATH $HOME $USER $SUDO_USER
        exit 3";
    let (_dir, script) = script(text);
    let line = format!("exec --kernel {} --env A=b=c --stdin", kernel.id);
    let mut command = faultlab(&line);
    command.arg(&input).args(["--", &script, "x  y", "--z"]).current_dir(dir.path()).env("SUDO_USER", "me");
    let Answer { status, out, err } = answer(&mut command);
    let here = dir.path().display();
    let place = Path::new(&script).parent().expect("a directory").display();
    let path = format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{place}:/applets");
    let expected = format!("b=c x  y 2\nfrom a file\nroot\n{here}\n{path} /tmp root\n");
    assert_eq!((status, out.as_str(), err.as_str()), (Some(3), expected.as_str(), "err\n"));
}

fn days_pass_in_seconds_and_the_bytes_are_the_same() {
    let script = "for i in $(seq 20); do sleep 1.5; date +%s.%N; done; head -c 8 /dev/urandom | od -An -tx1; echo $RANDOM; \
                  sleep 86400; cat /proc/uptime; ip -s link show lo";
    let bytes = || {
        let done = exec(&kernel(), "--json", &["bash", "-c", script]);
        assert_eq!(done.status, Some(0), "{}{}", done.out, done.err);
        let mut run = json(&done);
        let seconds = run["seconds"]["virtual"].as_f64().expect("a number");
        assert!((86_430.0..86_432.0).contains(&seconds), "{seconds}");
        run["seconds"]["wall"] = Value::Null;
        run
    };
    // Run two guests at once, so that the machine is busy.
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(bytes);
        (bytes(), other.join().expect("it runs"))
    });
    assert_eq!(one, two);
}

/// A bug report's script: two hosts, a rule, and a connection.
const NETNS: &str = "#!/bin/bash
set -e
ip netns add a
ip netns add b
ip link add va netns a type veth peer name vb netns b
ip -n a addr add 10.0.0.1/24 dev va; ip -n a link set va up; ip -n a link set lo up
ip -n b addr add 10.0.0.2/24 dev vb; ip -n b link set vb up; ip -n b link set lo up
ip netns exec b nft -f - << END
table inet t { chain c { type filter hook input priority 0; tcp dport 80 counter reject with tcp reset; }; }
END
ip netns exec a tc qdisc add dev va root netem delay 100ms
ip netns exec a bash -c ': < /dev/tcp/10.0.0.2/80' 2>&1 | grep -o -m 1 'Connection refused'
ip netns exec b nft list ruleset | grep -o 'counter packets [0-9]*'
ip -n a link add d0 type dummy
ip -n a link add w0 type vxlan id 1 dstport 4789
sysctl -q -w net.ipv4.tcp_congestion_control=bbr
modprobe nf_conntrack_ftp
lsmod | grep -c -E '^(dummy|vxlan|tcp_bbr|nf_conntrack_ftp|sch_netem) '
conntrack -C
";

fn a_script_brings_its_network_along() {
    let (_dir, script) = script(NETNS);
    for kernel in two() {
        let Answer { status, out, err } = exec(&kernel, "", &[&script]);
        let expected = "Connection refused\ncounter packets 1\n5\n0\n";
        assert_eq!((status, out.as_str()), (Some(0), expected), "{}: {err}", kernel.id);
    }
}

fn what_a_command_lacks_is_named() {
    let kernel = kernel();
    let missing = exec(&kernel, "", &["no-such-command"]);
    assert_eq!((missing.status, missing.out.as_str()), (Some(127), ""));
    assert!(missing.err.starts_with("faultlab: no-such-command: command not found on this machine"));
    let denied = exec(&kernel, "", &["/etc/passwd"]);
    assert_eq!(denied.status, Some(126), "{}", denied.err);

    let Answer { status, err, .. } =
        exec(&kernel, "", &["bash", "-c", "qemu-system-x86_64 --version; no-such-command; exit 5"]);
    assert_eq!(status, Some(5));
    assert!(err.contains("bring it along: --with qemu-system-x86_64\n"), "{err}");
    assert!(
        err.contains("faultlab: no-such-command was not found there, and is not on this machine"),
        "{err}"
    );
    assert!(!err.contains('\x1b'), "{err}");

    // A program, and a directory with a symlink loop, as plugin directories
    // have.
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("conf")).expect("a directory");
    fs::write(at("conf/a file"), "conf\n").expect("a file");
    symlink(dir.path(), at("conf/loop")).expect("a link");
    symlink("nowhere", at("conf/broken")).expect("a link");
    symlink(at("conf/circle"), at("conf/circle")).expect("a link");
    let with = format!("--with git --with {}", at("conf").display());
    let command = format!("git --version; cat '{}/a file'; readlink '{0}/broken'", at("conf").display());
    let Answer { status, out, err } = exec(&kernel, &with, &["sh", "-c", &command]);
    assert!(
        status == Some(0) && out.starts_with("git version") && out.ends_with("conf\nnowhere\n"),
        "{out}{err}"
    );
    let circle = exec(&kernel, &format!("--with {}", at("conf/circle").display()), &["true"]);
    assert_eq!(circle.status, Some(69));
    assert!(circle.err.contains("Too many levels of symbolic links"), "{}", circle.err);
}

fn a_command_ends_as_it_ended() {
    let kernel = kernel();
    let killed = exec(&kernel, "--json", &["sh", "-c", "echo before; kill -9 $$"]);
    let run = json(&killed);
    assert_eq!(killed.status, Some(128 + 9), "{}", killed.err);
    assert_eq!(
        (&run["status"], &run["signal"], &run["stdout"]),
        (&Value::Null, &9.into(), &"before\n".into())
    );
    // A file that is not an executable format is run by the shell.
    let (_dir, script) = script("echo plain; exit 4\n");
    let Answer { status, out, err } = exec(&kernel, "", &[&script]);
    assert_eq!((status, out.as_str()), (Some(4), "plain\n"), "{err}");
}

fn a_limit_ends_what_does_not_end() {
    let kernel = kernel();
    let waits = exec(&kernel, "--virtual-timeout 2h", &["sh", "-c", "echo begun; sleep 1000000; echo no"]);
    assert_eq!((waits.status, waits.out.as_str()), (Some(124), "begun\n"), "{}", waits.err);
    assert_eq!(waits.err, "faultlab: the command was ended after 2 h of virtual time (--virtual-timeout)\n");
    let spins = exec(&kernel, "--virtual-timeout 2s", &["sh", "-c", "trap '' TERM; while :; do :; done"]);
    assert_eq!((spins.status, spins.out.as_str()), (Some(124), ""), "{}", spins.err);
    let slow = exec(&kernel, "--timeout 100ms", &["true"]);
    assert_eq!(slow.status, Some(124));
    assert_eq!(slow.err, "faultlab: the command was ended after 0.1 s (--timeout)\n");
}

/// The files below a directory.
fn files(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(top).expect("below").display().to_string();
            if path.is_dir() {
                found.insert(name, "directory".to_owned());
                left.push(path);
            } else {
                found.insert(name, fs::read_to_string(path).expect("a file"));
            }
        }
    }
    found
}

fn nothing_outlives_a_command_and_its_files_come_back() {
    let kernel = kernel();
    let home = tempfile::tempdir().expect("a directory");
    let out = home.path().join("results");
    let script = "
        (trap 'echo ended > $OUT/daemon; exit' TERM; while :; do sleep 1; done) &
        setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &
        mkdir -p \"$OUT/a b/empty\" $OUT/c; echo x > \"$OUT/a b/d e\"; echo y > $OUT/c/f
        ln -s /etc/passwd $OUT/passwd; ln -s / $OUT/root; mkfifo $OUT/fifo
        sleep 2";
    let options = format!("--json --out {}", out.display());
    let done = exec(&kernel, &options, &["sh", "-c", script]);
    // The second that its processes have after SIGTERM is not the command's.
    let seconds = json(&done)["seconds"]["virtual"].as_f64().expect("a number");
    assert!((2.0..2.9).contains(&seconds), "{seconds}");
    let Answer { status, err, .. } = done;
    assert_eq!(status, Some(0), "{err}");
    assert!(err.contains("faultlab: 3 entries of $OUT were not copied: links"), "{err}");
    let expected = [
        ("a b", "directory"),
        ("a b/d e", "x\n"),
        ("a b/empty", "directory"),
        ("c", "directory"),
        ("c/f", "y\n"),
        ("daemon", "ended\n"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    assert_eq!(files(&out), expected);
}

fn a_panic_and_a_partial_root_have_their_own_sentences() {
    let kernel = kernel();
    let panic =
        exec(&kernel, "", &["sh", "-c", "echo before; sleep 1; echo c > /proc/sysrq-trigger; sleep 9"]);
    assert_eq!((panic.status, panic.out.as_str()), (Some(70), "before\n"), "{}", panic.err);
    assert!(panic.err.contains("Kernel panic - not syncing: sysrq triggered crash"), "{}", panic.err);
    let small = exec(&kernel, "--memory 112", &["true"]);
    assert_eq!((small.status, small.out.as_str()), (Some(69), ""), "{}", small.err);
    let sentence = "it has 112 MiB of memory, too little for its files";
    assert!(small.err.contains(sentence) && small.err.contains("--memory"), "{}", small.err);
}

fn kernels_are_compared() {
    let [old, new] = two();
    let both = format!("exec --kernel {} --kernel {} --", old.id, new.id);
    let differ = answer(faultlab(&both).args(["sh", "-c", "echo same; uname -r | cut -d. -f1"]));
    assert_eq!(differ.status, Some(1), "{}", differ.err);
    let (one, two) = (old.version[0], new.version[0]);
    assert_eq!(differ.out, format!("same\n{one}\nsame\n{two}\n"));
    let row: Vec<_> = differ.err.lines().last().expect("a table").split_whitespace().collect();
    assert_eq!(row, ["stdout", "line", "2", &one.to_string(), &two.to_string()], "{}", differ.err);
    let alike = answer(faultlab(&both).args(["sh", "-c", "echo same; exit 7"]));
    assert_eq!((alike.status, alike.out.as_str()), (Some(0), "same\nsame\n"), "{}", alike.err);
}

fn nothing_is_left_of_an_interrupted_command() {
    let kernel = kernel();
    for (signal, status) in
        [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)]
    {
        let home = Home::new();
        let line = format!("exec --kernel {} -- sh", kernel.id);
        let mut command = faultlab(&line);
        command.args(["-c", "while :; do :; done"]);
        command.env("TMPDIR", home.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut session = Session::start(&mut command);
        let begun = Instant::now();
        while session.named("qemu-system").is_empty() {
            assert!(begun.elapsed() < PATIENCE, "there are {:?}", session.processes());
            std::thread::yield_now();
        }
        session.signal(signal);
        let interrupted = Instant::now();
        assert_eq!(session.status(), status, "{signal}");
        let waited = session.gone(interrupted);
        assert!(waited < SOON, "a guest lived for {waited:?}");
        home.assert_empty();
    }
}
