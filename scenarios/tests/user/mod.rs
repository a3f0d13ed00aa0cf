//! What a user does: types commands, at a terminal or into a pipe, and
//! interrupts them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::frame::{self, Test, leave_out};

/// Runs tests that keep a processor busy, as a guest or a browser does.
pub fn two_at_a_time(tests: &[Test]) -> ExitCode {
    at_once(2, tests)
}

/// Runs tests that mostly wait for the kernel's timers.
pub fn four_at_a_time(tests: &[Test]) -> ExitCode {
    at_once(4, tests)
}

fn at_once(threads: usize, tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    frame::run(&arguments, tests, None)
}

/// How long a test waits for what must come, on however slow a machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long anything may live after its starter, on a machine as busy as it
/// gets: a tenth of it on an idle one. The hang that a test ends goes on for
/// more than twice as long by itself.
pub const SOON: Duration = Duration::from_secs(5);

/// What a command came to.
#[derive(Debug)]
pub struct Answer {
    /// The exit status; none where a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

/// `faultlab` with these arguments, a word each, and none of the user's
/// settings.
pub fn faultlab(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultlab"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "FAULTLAB_REQUIRE_ALL"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm");
    command
}

/// Runs a command into two pipes.
pub fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("faultlab starts");
    Answer {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// Types a line and waits for its end.
pub fn ask(line: &str) -> Answer {
    answer(&mut faultlab(line))
}

/// What an outcome says without what it was seen by: the verdict, whether it is
/// expected, and what each arm met.
pub fn without_evidence(outcome: &Value) -> Value {
    let arms = outcome["arms"].as_array().expect("a list").iter();
    let met = |arm: &Value| json!([arm["name"], arm["observations"], arm["unseen"]]);
    json!([outcome["scenario"], outcome["verdict"], outcome["expected"], arms.map(met).collect::<Vec<_>>()])
}

/// Leaves the test out where scenarios cannot run.
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

/// A terminal of 100 columns.
pub struct Terminal {
    screen: Receiver<String>,
    keyboard: File,
    seen: String,
    /// The side that a program has.
    side: OwnedFd,
}

impl Terminal {
    pub fn new() -> Self {
        let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudoterminal");
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("FD_CLOEXEC");
        }
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        let (tell, screen) = channel();
        // Ends with EIO when the last program has closed its side.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send(text).is_err() {
                    break;
                }
            }
        });
        Self { screen, keyboard, seen: String::new(), side: pty.slave }
    }

    /// The terminal as a program's stdin, stdout or stderr.
    pub fn side(&self) -> Stdio {
        self.side.try_clone().expect("a descriptor").into()
    }

    /// How it treats what is typed and written.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.side).expect("it is a terminal")
    }

    /// Has it treat what is typed and written so.
    pub fn set_modes(&self, modes: &Termios) {
        tcsetattr(&self.side, SetArg::TCSANOW, modes).expect("it is a terminal");
    }

    /// Waits until the text is seen.
    pub fn wait_for(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.seen.push_str(&more),
                Err(error) => panic!("{error}: waited {PATIENCE:?} for {text:?}; there is: {}", self.seen),
            }
        }
    }

    /// Everything that was written, when all programs have ended.
    pub fn text(mut self) -> String {
        drop(self.side);
        self.seen.extend(self.screen.iter());
        self.seen
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).expect("the terminal takes keys");
    }

    /// Presses Ctrl-C: the terminal sends SIGINT to its foreground processes.
    pub fn interrupt(&mut self) {
        self.press(b"\x03");
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal takes keys");
    }
}

/// A program that leads a session of its own: whatever it starts is in it.
pub struct Session {
    child: Child,
}

impl Session {
    /// Starts the command, whose stdin becomes the session's terminal if it is
    /// one.
    pub fn start(command: &mut Command) -> Self {
        let lead = || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes a number; where stdin is no terminal it
            // fails and does nothing.
            #[allow(unsafe_code, reason = "nix wraps no TIOCSCTTY")]
            unsafe {
                nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0);
            }
            io::Result::Ok(())
        };
        // SAFETY: `lead` makes two system calls and allocates nothing.
        #[allow(unsafe_code, reason = "code between fork and exec, see SAFETY")]
        let command = unsafe { command.pre_exec(lead) };
        Self { child: command.spawn().expect("faultlab starts") }
    }

    /// `faultlab run veth-teardown-hang`, as soon as the hang is there: the
    /// control's arm has ended, and that is the last thing before the kernel's
    /// warning, ten seconds later.
    pub fn in_the_hang(terminal: &mut Terminal) -> Self {
        let mut command = faultlab("run veth-teardown-hang");
        command.stdin(terminal.side()).stdout(terminal.side()).stderr(terminal.side());
        let session = Self::start(&mut command);
        terminal.wait_for("1/5 arms");
        assert!(session.processes().len() >= 3, "faultlab and the worker's two: {:?}", session.processes());
        session
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("the process is not waited for yet");
    }

    /// Waits for the end of the program and returns its exit status.
    pub fn status(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("faultlab does not end: {:?}", self.processes());
    }

    /// The processes of the session that hold anything, as `id name state`.
    pub fn processes(&self) -> Vec<String> {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        numbers.filter_map(|pid| self.member(pid)).collect()
    }

    fn member(&self, pid: u32) -> Option<String> {
        // pid (comm) state ppid pgrp session ...; it may end while it is read.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let (state, session) = (*fields.first()?, fields.get(3)?.parse::<u32>().ok()?);
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        // A zombie holds nothing, unless it is the first of several threads.
        let dead = state == "Z" && threads < 2;
        (session == self.child.id() && !dead).then(|| format!("{name}) {state}"))
    }

    /// Waits until no process is left, and tells how long that took.
    pub fn gone(&self, since: Instant) -> Duration {
        while !self.processes().is_empty() {
            assert!(since.elapsed() < PATIENCE, "there still is {:?}", self.processes());
            thread::sleep(Duration::from_millis(5));
        }
        since.elapsed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A test that failed leaves nothing running; its workers follow.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shortest scenario: no timer of the kernel decides it.
pub const SHORT: &str = "conntrack-beyond-window-reset";

/// What is said of a wrong command line: status 2, and nothing on stdout.
pub fn refusal(line: &str) -> String {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, out.as_str()), (Some(2), ""), "{line}: {err}");
    err
}

/// Every line of stdout as JSON.
pub fn json(line: &str) -> Vec<Value> {
    let Answer { status, out, err } = ask(line);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{line}");
    out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}"))).collect()
}

pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
