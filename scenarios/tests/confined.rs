//! A shell and a worker cannot change the machine: as root, as a user without
//! privileges, and without user namespaces.
//!
//! No attempt here does harm if it succeeds: a file is opened but not written,
//! and a value is set to its current value.

#[allow(dead_code, reason = "not every suite does all that a user does")]
mod user;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use faultlab_testkit::{Answer, PATIENCE, answer, leave_out};
use nix::unistd::geteuid;
use user::{SHORT, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::four_at_a_time:
    a_shell_of_this_user_changes_nothing,
    a_shell_of_a_user_without_privileges_changes_nothing,
    a_shell_of_root_is_nobody_of_this_machine,
    tcpdump_captures_for_root_and_for_a_user,
    a_server_changes_its_user,
    a_directory_out_of_reach_is_told,
    a_shell_without_user_namespaces_is_refused,
    a_worker_without_user_namespaces_keeps_four_capabilities,
    what_is_used_up_is_no_outcome,
];

/// The user that starts faultlab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// The user that runs the tests.
    This,
    /// A user without privileges.
    Nobody,
    /// Root of a user namespace that may not create others.
    Bounded,
}

/// A copy of the program that everyone can start, and its directory.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let program = directory.path().join("faultlab");
        fs::copy(env!("CARGO_BIN_EXE_faultlab"), program).expect("a copy of the program");
        Self { directory }
    }

    /// `faultlab` with these arguments, started by that user.
    fn faultlab(&self, user: User, line: &str) -> Command {
        let program = self.directory.path().join("faultlab");
        let mut command = match user {
            User::This => Command::new(program),
            User::Nobody if geteuid().is_root() => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
                command
            }
            User::Nobody => leave_out("this is not root, who can become another user"),
            User::Bounded => {
                let bound = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "sh", "-c", bound]).arg(program);
                command
            }
        };
        command.args(line.split_whitespace()).stdin(Stdio::null()).current_dir("/");
        command.env("SHELL", "/bin/sh").env("TERM", "xterm").env_remove("FAULTLAB_REQUIRE_ALL");
        command
    }

    /// The output of a shell for these commands.
    fn shell(&self, user: User, commands: &str) -> Answer {
        needs_namespaces();
        let (read, write) = io::pipe().expect("a pipe");
        let commands = commands.to_owned();
        let writer = thread::spawn(move || {
            // A shell that did not start reads nothing.
            let _ = { write }.write_all(commands.as_bytes());
        });
        let answer = answer(self.faultlab(user, &format!("shell {SHORT}")).stdin(read));
        writer.join().expect("the commands are written");
        answer
    }
}

/// Leaves the test out if a program is missing.
fn needs(program: &str) {
    let found = Command::new("sh")
        .args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin; command -v {program}")])
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        leave_out(format!("{program} is missing"));
    }
}

/// The state of the machine that a shell could change, as far as this process
/// sees it.
#[derive(Debug, PartialEq, Eq)]
struct State(BTreeMap<String, String>);

impl State {
    fn look() -> Self {
        let mut all = BTreeMap::new();
        sysctls(Path::new("/proc/sys"), &mut all);
        for file in ["/proc/self/mountinfo", "/proc/modules", "/proc/cmdline"] {
            all.insert(file.to_owned(), fs::read_to_string(file).unwrap_or_default());
        }
        // The use counts of modules vary.
        let names = all["/proc/modules"].lines().filter_map(|line| line.split(' ').next());
        let names = names.collect::<Vec<_>>().join(" ");
        all.insert("/proc/modules".to_owned(), names);
        for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let file = format!("/proc/self/ns/{namespace}");
            all.insert(file.clone(), fs::read_link(file).unwrap_or_default().display().to_string());
        }
        for file in
            ["/", "/etc", "/etc/hosts", "/etc/passwd", "/usr", "/usr/bin", "/var", "/root", "/dev/null"]
        {
            let found = fs::metadata(file);
            let found = found.map(|m| (m.ino(), m.mode(), m.uid(), m.gid(), m.rdev()));
            all.insert(file.to_owned(), format!("{found:?}"));
        }
        Self(all)
    }

    /// The differences between then and now.
    fn changes(&self) -> Vec<String> {
        let now = Self::look();
        let differs = |(key, value): (&String, &String)| {
            let new = now.0.get(key);
            (new != Some(value)).then(|| format!("{key} was {value:?} and is {new:?}"))
        };
        self.0.iter().filter_map(differs).collect()
    }
}

/// Sysctls that change by themselves.
const MOVING: [&str; 9] = [
    "/fs/dentry-state",
    "/fs/file-nr",
    "/fs/inode-",
    "/fs/aio-nr",
    "/random/",
    "ns_last_pid",
    "/pty/nr",
    "_count",
    "/fs/quota/",
];

fn sysctls(folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.display().to_string();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sysctls(&path, into);
        } else if !MOVING.iter().any(|moving| name.contains(moving))
            && let Ok(value) = fs::read_to_string(&path)
        {
            into.insert(name, value);
        }
    }
}

/// Makes all attempts, and prints those that succeed. `tried` at the end shows
/// that it finished.
const ATTEMPTS: &str = r#"
exec 2>/dev/null
try() { name=$1; shift; if "$@"; then echo "possible: $name"; fi; }
opens() { (: >> "$1"); }
makes() { opens "$1" && rm "$1"; }
mkdir /tmp/m

# Files, sysctls and settings, as they are.
for f in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sysrq-trigger /proc/sys/kernel/modprobe \
    /etc/hosts /etc/passwd /usr/bin/env /sys/kernel/uevent_helper /sys/power/state /proc/kcore \
    /proc/1/root/etc/hosts /proc/1/cwd/etc/hosts /proc/self/root/etc/hosts; do
  try "open $f" opens $f
done
for f in /etc/faultlab-test /root/faultlab-test /var/faultlab-test /home/faultlab-test /faultlab-test; do
  try "make $f" makes $f
done
for f in $(find /sys /proc/sys /etc /usr/bin /boot -path /proc/sys/net -prune -o ! -type l -writable -print | head -n 5); do
  echo "possible: write $f"
done
try 'set the host name' sh -c 'hostname "$(hostname)"'

# Mounts.
for place in / /proc /proc/sys /sys /etc /dev /tmp; do
  try "remount $place" mount -o remount,rw $place
done
for place in / /proc/sys /sys; do
  try "remount the bind $place" mount -o remount,bind,rw $place
done
for place in /proc/sys/net /proc/sys /proc /sys /dev /tmp /run; do
  try "umount $place" umount $place
  try "umount -l $place" umount -l $place
done
try 'mount /proc' mount -t proc proc /tmp/m
try 'mount /proc in a pid namespace' unshare --pid --fork mount -t proc proc /tmp/m
try 'mount /proc in a user namespace' unshare --user --map-root-user --pid --mount --fork mount -t proc proc /tmp/m
umount /tmp/m
mount -t sysfs sysfs /tmp/m && try 'write to a new /sys' test -n "$(find /tmp/m -type f -writable | head -n 1)"
umount /tmp/m
unshare --mount sh -c 'mount --rbind / /tmp/m && mount -o remount,bind,rw /tmp/m; : >> /tmp/m/etc/hosts' && echo 'possible: bind /'
unshare --user --map-root-user --mount sh -c 'umount /proc/sys || mount -o remount,bind,rw /proc/sys' &&
  echo 'possible: free /proc/sys in a user namespace'
try 'chroot' chroot /proc/1/root sh -c ': >> /etc/hosts'

# Devices.
try 'make a character device' mknod /tmp/mem c 1 1
try 'make a block device' mknod /tmp/disk b 254 0
try 'make a device in /dev' mknod /dev/disk b 254 0
for d in $(find /dev -type b -o -name mem -o -name port -o -name 'tty[0-9]*'); do echo "possible: see $d"; done

# Namespaces and processes of others.
mine=$(readlink /proc/self/ns/user)
for p in /proc/[0-9]*; do
  for kind in mnt pid ipc; do
    [ "$(readlink $p/ns/$kind)" = "$(readlink /proc/self/ns/$kind)" ] || echo "possible: see $p, of another $kind namespace"
  done
  [ "$(readlink $p/ns/user)" = "$mine" ] || echo "possible: see $p, of another user namespace"
done | head -n 5
try 'nsenter' nsenter --target 1 --mount --pid --ipc sh -c ': >> /etc/hosts'

# System calls, by their numbers on x86-64.
if [ "$(uname -m)" = x86_64 ] && command -v perl > /dev/null; then
  perl -e '
    sub tried { my ($name, @call) = @_; my $r = syscall(shift @call, @call); $r = $! + 0 if $r < 0;
                print "possible: $name ($r)\n" unless $r == 1 || $r == 38 || $r == 30; }
    tried("load a module", 175, 0, 0, 0);
    my $none = "no_such_module"; tried("unload a module", 176, $none, 0);
    # Of a file that there is not: who may not ask is told so first.
    my $file = "/no-such-file"; tried("swapon", 167, $file, 0);
    tried("acct", 163, $file);
    my $handle = pack("Ii", 128, 0) . ("\0" x 128); my $mount = pack("i", 0); my $path = "/etc/hosts";
    if (syscall(303, -100, $path, $handle, $mount, 0) == 0 && opendir(my $root, "/")) {
      my $fd = syscall(304, fileno($root), $handle, 1);
      print "possible: open by handle\n" if $fd >= 0;
    }
    my $byte = "x"; my $r = ioctl(STDOUT, 0x5412, $byte);
    print "possible: type on the terminal ($!)\n" unless !defined $r && $! == 1;
  '
fi
echo tried
"#;

fn changes_nothing(user: User) {
    let place = Place::new();
    let before = State::look();
    let Answer { out, err, .. } = place.shell(user, ATTEMPTS);
    assert_eq!(out, "tried\n", "{err}");
    assert_eq!(before.changes(), Vec::<String>::new());
}

fn a_shell_of_this_user_changes_nothing() {
    changes_nothing(User::This);
}

fn a_shell_of_a_user_without_privileges_changes_nothing() {
    changes_nothing(User::Nobody);
}

fn a_shell_of_root_is_nobody_of_this_machine() {
    if !geteuid().is_root() {
        leave_out("this is not root");
    }
    let place = Place::new();
    let keyring = "perl -e 'print syscall(250, 0, -3, 0), \"\\n\"'";
    let commands =
        format!("id -u; cut -c 11- /proc/self/uid_map; test -r /etc/shadow || echo secret; {keyring}");
    let Answer { out, err, .. } = place.shell(User::This, &commands);
    let lines: Vec<_> = out.lines().collect();
    let [zero, map, shadow, ring] = lines[..] else { panic!("{out}{err}") };
    assert_eq!((zero, shadow), ("0", "secret"), "{err}");
    let [outside, count] = map.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{map}") };
    assert!(outside.parse::<u32>().is_ok_and(|id| id > 65535), "{map}");
    assert_eq!(count, "65536");
    let own = Command::new("sh").args(["-c", keyring]).output().expect("sh starts");
    assert_ne!(String::from_utf8_lossy(&own.stdout).trim(), ring);
}

fn tcpdump_captures_for_root_and_for_a_user() {
    needs("tcpdump");
    needs("ip");
    // tcpdump must listen before the frame is sent: a wire is an interface of
    // this process.
    let commands = "
        ip netns exec client tcpdump -ni any -c 1 -w /tmp/file.pcap 2> /tmp/said &
        until grep -q 'listening on' /tmp/said; do kill -0 $! || break; done
        nsenter --net=/run/netns/client bash -c ': < /dev/tcp/10.96.0.1/80' 2> /dev/null
        wait; cat /tmp/said >&2
        tcpdump -nr /tmp/file.pcap 2> /dev/null | grep -c 10.96.0.1";
    for user in [User::This, User::Nobody] {
        let Answer { out, err, .. } = Place::new().shell(user, commands);
        assert_eq!(out, "1\n", "{user:?}: {err}");
    }
}

fn a_server_changes_its_user() {
    needs("nginx");
    if !geteuid().is_root() {
        leave_out("this is not root, who has more than one user");
    }
    let commands = "
        cat > /tmp/conf <<'END'
        user www-data; pid /run/nginx.pid; error_log stderr; daemon on;
        events {}
        http { access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
               uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; server { listen 80; } }
END
        ip netns exec server nginx -c /tmp/conf || exit
        while :; do
          for p in /proc/[0-9]*; do
            grep -q nginx $p/comm && [ $(stat -c %U $p) = www-data ] && { echo www-data; exit; }
          done
        done";
    let Answer { out, err, .. } = Place::new().shell(User::This, commands);
    assert_eq!(out, "www-data\n", "{err}");
}

fn a_directory_out_of_reach_is_told() {
    let place = Place::new();
    needs_namespaces();
    // Hidden by the shell's own /tmp.
    let (read, write) = io::pipe().expect("a pipe");
    { write }.write_all(b"pwd; echo x > file && echo written").expect("a pipe has room for a line");
    let mut command = place.faultlab(User::This, &format!("shell {SHORT}"));
    let hidden = tempfile::tempdir_in("/tmp").expect("a directory");
    let Answer { out, err, .. } = answer(command.current_dir(hidden.path()).stdin(read));
    assert_eq!(out, "/tmp\nwritten\n", "{err}");
    let told = err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("you are in /tmp"), "{err}");
    assert_eq!(fs::read_dir(hidden.path()).expect("a directory").count(), 0);
    assert!(!PathBuf::from("/tmp/file").exists());
}

fn a_shell_without_user_namespaces_is_refused() {
    needs_namespaces();
    let place = Place::new();
    let Answer { status, out, err } = place.shell(User::Bounded, "exit 7");
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert!(err.contains("--kernel") && err.contains("--unconfined") && err.lines().count() == 1, "{err}");
    let line = format!("shell {SHORT} --unconfined");
    let (read, write) = io::pipe().expect("a pipe");
    { write }.write_all(b"exit 7").expect("a pipe has room for a line");
    let Answer { status, err, .. } = answer(place.faultlab(User::Bounded, &line).stdin(read));
    assert_eq!(status, Some(7), "{err}");
}

/// The child processes of a process.
fn children(process: u32) -> Vec<u32> {
    let file = format!("/proc/{process}/task/{process}/children");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Waits until `is_so` holds for a child or a grandchild of a process, and
/// returns its pid.
fn descendant(program: u32, is_so: impl Fn(u32) -> bool) -> u32 {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let all = children(program).into_iter().flat_map(children).chain(children(program));
        if let Some(found) = all.into_iter().find(|process| is_so(*process)) {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited {PATIENCE:?} for a worker");
}

fn a_worker_without_user_namespaces_keeps_four_capabilities() {
    needs_namespaces();
    let place = Place::new();
    let mut command = place.faultlab(User::Bounded, "run keepalive-dead-peer");
    let mut program = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("faultlab starts");
    // Bits 10, 12, 13 and 21 of linux/capability.h.
    let four = 1_u64 << 10 | 1 << 12 | 1 << 13 | 1 << 21;
    let kept = |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        };
        ["CapPrm:", "CapEff:", "CapBnd:"].into_iter().all(|name| set(name) == Some(four))
    };
    descendant(program.id(), kept);
    assert_eq!(program.wait().expect("it ends").code(), Some(0));
}

fn what_is_used_up_is_no_outcome() {
    needs_namespaces();
    // The check, the networks and the probes reach their limits at different
    // numbers of descriptors.
    for descriptors in 12..=38 {
        let limited = format!("ulimit -n {descriptors}; exec \"$0\" run {SHORT} --no-captures");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_faultlab")]).env_remove("FAULTLAB_REQUIRE_ALL");
        let Answer { status, out, err } = answer(&mut command);
        assert_eq!((status, out.as_str()), (Some(69), ""), "{descriptors}: {err}");
        assert!(err.contains("Too many open files") && err.contains("ulimit -Hn"), "{descriptors}: {err}");
        assert_eq!(err.lines().count(), 1, "{descriptors}: {err}");
    }
}
