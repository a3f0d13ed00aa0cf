//! Runs a command in this process's namespaces. This process is the init of its pid
//! namespace: it reaps all other processes, and ends them when the command ends.
//!
//! Reading: signalfd(2), pid_namespaces(7), kill(2) of -1.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use super::frames::{self, ExecEnd, HowEnded, Stream};
use super::order::{ExecOrder, OUT};
use super::{loopback, out_directory};
use crate::protocol::Frame;
use faultlab_base::error::{Error, Result};

/// The capacity of an output pipe: until it is full, the command need not wait while
/// output is sent.
const PIPE_SIZE: i32 = 1 << 20;
/// The maximum size of a message with output.
const PIECE: usize = 64 << 10;
/// The time between SIGTERM and SIGKILL for processes that outlive the command.
const GRACE: Duration = Duration::from_secs(1);

/// For kill(2): every process except init, which is this process.
const EVERY_OTHER_PROCESS: Pid = Pid::from_raw(-1);
/// The init of a pid namespace.
const INIT: Pid = Pid::from_raw(1);

/// Sets up the loopback interface and creates `$OUT`.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn prepare() -> Result<()> {
    loopback::set_up()?;
    loopback::connect_once();
    let made = fs::create_dir_all(OUT).and_then(|()| fs::set_permissions(OUT, Permissions::from_mode(0o777)));
    made.map_err(|e| Error::kernel("command", format!("make {OUT}"), e))
}

/// Runs a command; sends its output, its files, and last its end. `started` is called
/// once the command runs.
///
/// # Errors
/// If this process is not an init, a system call fails, or `send` fails. A command
/// that cannot be started is not an error but [`HowEnded::NotStarted`].
pub(crate) fn run(
    order: &ExecOrder,
    started: &dyn Fn() -> Result<()>,
    send: &mut dyn FnMut(&Frame) -> Result<()>,
) -> Result<()> {
    let failed = |tried: &'static str| move |e: Errno| Error::kernel("command", tried, e);
    if getpid() != INIT {
        // kill(-1) would end the machine's processes.
        return Err(Error::Lab("command: this process is not the first one of a pid namespace".to_owned()));
    }
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block().map_err(failed("block SIGCHLD"))?;
    let signals = SignalFd::with_flags(&ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(failed("signalfd"))?;
    let begun = Instant::now();
    let (how, time, left_out) = match start(order) {
        Err(error) => (HowEnded::NotStarted(error.raw_os_error().unwrap_or(libc::EIO)), begun.elapsed(), 0),
        Ok((child, outputs)) => {
            started()?;
            let mut running = Running { child, outputs, signals, left: order.output_max, status: None };
            let how = running.until_end(begun + order.limit, send)?;
            let time = begun.elapsed();
            running.end_others(send)?;
            let left_out = if order.send_files { out_directory::send(Path::new(OUT), send)? } else { 0 };
            (how, time, left_out)
        }
    };
    send(&frames::end(&ExecEnd { how, time, left_out }))
}

/// The read ends of a command's standard output and error, as long as they are open.
type Outputs = [Option<File>; 2];

/// Starts the command; returns its process id and the read ends of its outputs.
fn start(order: &ExecOrder) -> io::Result<(Pid, Outputs)> {
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let spawn = |program: &Path, name: &Path, before: Option<&Path>| -> io::Result<Pid> {
        let stdin = match &order.stdin {
            Some(file) => Stdio::from(File::open(file)?),
            None => Stdio::null(),
        };
        let mut command = Command::new(program);
        command.arg0(name).args(before).args(order.arguments.iter().skip(1));
        command.env_clear().envs(order.environment.iter().map(|(name, value)| (name, value)));
        if order.directory.is_dir() {
            command.current_dir(&order.directory);
        }
        command.process_group(0);
        command.stdin(stdin).stdout(out_end.try_clone()?).stderr(err_end.try_clone()?);
        Ok(Pid::from_raw(command.spawn()?.id().cast_signed()))
    };
    let name = order.arguments.first().map_or(order.program.as_path(), Path::new);
    let child = match spawn(&order.program, name, None) {
        // As execvp(3): a file without a known format (ENOEXEC) is run by the shell.
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
            let shell = Path::new("/bin/sh");
            spawn(shell, shell, Some(&order.program))?
        }
        started => started?,
    };
    Ok((child, [Some(out), Some(err)]))
}

fn pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(read.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // This fails for a user with many pipes (pipe(7), pipe-user-pages-soft); then the
    // capacity stays 64 KiB.
    let _ = fcntl(read.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((File::from(read), write))
}

/// A command that runs.
struct Running {
    child: Pid,
    outputs: Outputs,
    signals: SignalFd,
    /// The bytes that it may still print.
    left: u64,
    status: Option<HowEnded>,
}

impl Running {
    /// Sends output until the command ends, or exceeds a limit.
    fn until_end(
        &mut self,
        deadline: Instant,
        send: &mut dyn FnMut(&Frame) -> Result<()>,
    ) -> Result<HowEnded> {
        loop {
            if !self.pass_on(send)? {
                return Ok(HowEnded::TooMuchOutput);
            }
            self.reap();
            if let Some(status) = self.status {
                // Its last output is still in the pipes.
                return Ok(if self.pass_on(send)? { status } else { HowEnded::TooMuchOutput });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(HowEnded::OutOfTime);
            }
            self.wait(left)?;
        }
    }

    /// Ends all processes that are left, and sends what they print meanwhile.
    fn end_others(&mut self, send: &mut dyn FnMut(&Frame) -> Result<()>) -> Result<()> {
        // ESRCH: no process is left.
        let _ = kill(EVERY_OTHER_PROCESS, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while self.reap() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let _ = kill(EVERY_OTHER_PROCESS, Signal::SIGKILL);
            }
            self.wait(left.max(Duration::from_millis(1)))?;
            self.pass_on(send)?;
        }
        self.pass_on(send).map(drop)
    }

    /// Waits for output or the end of a process.
    fn wait(&mut self, most: Duration) -> Result<()> {
        let outputs = self.outputs.iter().flatten().map(AsFd::as_fd);
        let mut fds: Vec<_> =
            outputs.chain([self.signals.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // poll(2) takes milliseconds: rounded up, so that the deadline has passed when
        // it times out.
        let timeout = most + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::kernel("command", "poll", errno)),
        }
    }

    /// Sends all available output; false if it exceeds the limit.
    fn pass_on(&mut self, send: &mut dyn FnMut(&Frame) -> Result<()>) -> Result<bool> {
        let mut piece = vec![0; PIECE];
        for (stream, output) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut self.outputs) {
            while let Some(file) = output {
                let length = match file.read(&mut piece) {
                    Ok(0) => {
                        *output = None;
                        break;
                    }
                    Ok(length) => length,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(Error::kernel("command", "read its output", e)),
                };
                let may = usize::try_from(self.left).unwrap_or(usize::MAX).min(length);
                if may > 0 {
                    send(&frames::output(stream, &piece[..may]))?;
                }
                self.left -= may as u64;
                if may < length {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reaps all processes that have ended; false if no process is left.
    fn reap(&mut self) -> bool {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return false,
            };
            let how = match ended {
                WaitStatus::Exited(pid, code) if pid == self.child => {
                    HowEnded::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.child => {
                    HowEnded::Signalled(u8::try_from(signal as i32).unwrap_or(u8::MAX))
                }
                _ => continue,
            };
            self.status = Some(how);
        }
    }
}
