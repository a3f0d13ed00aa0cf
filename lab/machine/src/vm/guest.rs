//! One guest, from its start to its end.
//!
//! Reading: prctl(2), PR_SET_PDEATHSIG; memfd_create(2).

use std::fs::File;
use std::future::{pending, poll_fn};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::command_line::{Files, Guest};
use super::console::Console;
use super::frame::{Decoder, Frame};
use super::person::Person;
use super::qemu::{Accelerator, Clock, PROGRAM, Qemu, Way};
use faultlab_base::error::{Error, Result};
use faultlab_kernels::vmlinux;

/// A pipe that holds more than a guest prints while this process waits for a
/// CPU. A serial port whose reader is late shows itself in the guest's time.
const PIPE_SIZE: i32 = 1 << 20;

/// How long a guest under KVM may print nothing, seconds of the host's clock.
/// Where KVM works the first line takes a fraction of one.
const KVM_SILENCE: Duration = Duration::from_secs(5);

/// Whether a guest under KVM failed to boot in this process. The next one
/// would too.
static KVM_FAILED: AtomicBool = AtomicBool::new(false);

/// How many lines of the console explain a failure.
const LAST_LINES: usize = 10;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It powered off or rebooted, and QEMU left with 0.
    PoweredOff,
    /// Its kernel panicked with this line.
    Panicked(String),
    /// It did not boot in time.
    NeverBooted {
        /// Seconds of the host's clock.
        waited: Duration,
    },
    /// It had booted, and reported nothing more in time.
    Hung {
        /// Since its last frame, seconds of the host's clock.
        waited: Duration,
    },
    /// QEMU itself failed.
    Died {
        /// How it left.
        status: ExitStatus,
        /// What it printed.
        said: String,
    },
}

/// What a guest left behind.
#[derive(Debug, Clone)]
pub struct GuestEnd {
    /// The way it was started that came furthest.
    pub way: Way,
    /// How it ended.
    pub how: End,
    /// What it reported.
    pub frames: Vec<Frame>,
    /// Bytes on the second serial port that were part of no frame.
    pub noise: u64,
    /// What its kernel printed.
    pub console: Console,
}

impl GuestEnd {
    /// What went wrong, with the last lines of the console; none where the
    /// guest powered off.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let what = match &self.how {
            End::PoweredOff => return None,
            End::Panicked(line) => line.clone(),
            End::NeverBooted { waited } => {
                format!("the guest ({}) did not boot in {} s", self.way, waited.as_secs())
            }
            End::Hung { waited } => {
                format!("the guest ({}) reported nothing more in {} s", self.way, waited.as_secs())
            }
            End::Died { status, said } => format!("QEMU ({}): {status}: {}", self.way, said.trim_end()),
        };
        let lines = match self.how {
            // What follows a panic is registers; what led to it comes before.
            End::Panicked(_) => self.console.lines_to_panic(LAST_LINES),
            _ => self.console.last_lines(LAST_LINES),
        };
        let lines = if lines.is_empty() { vec!["(an empty console)".to_owned()] } else { lines };
        Some(format!("{what}\n{}", lines.join("\n")))
    }

    /// Whether another way might do better: nothing was reported yet.
    fn never_spoke(&self) -> bool {
        self.frames.is_empty() && !matches!(self.how, End::PoweredOff)
    }
}

impl Qemu {
    /// Runs a guest to its end. Every frame goes to `on_frame` as it comes.
    ///
    /// QEMU ends with this thread, whatever ends the thread.
    ///
    /// # Errors
    /// Where QEMU cannot be started. What goes wrong in the guest is no error
    /// but a [`GuestEnd`].
    pub async fn run(&self, guest: &Guest<'_>, on_frame: &mut dyn FnMut(&Frame)) -> Result<GuestEnd> {
        let kvm = self.clock == Clock::Real && kvm_opens() && !KVM_FAILED.load(Ordering::Relaxed);
        let memory = Memory {
            kernel: in_memory("kernel image", guest.kernel)?,
            vmlinux: vmlinux::unpack(guest.kernel).map(|v| in_memory("vmlinux", &v)).transpose()?,
            initramfs: in_memory("initramfs", guest.initramfs)?,
        };
        let mut best: Option<GuestEnd> = None;
        for way in self.ways(kvm) {
            let end = self.run_once(way, guest, &memory, on_frame).await?;
            if !end.never_spoke() {
                return Ok(end);
            }
            if way.accelerator == Accelerator::Kvm {
                KVM_FAILED.store(true, Ordering::Relaxed);
            }
            // Of ways that all fail, the one that printed something tells most.
            if best.as_ref().is_none_or(|best| best.console.is_empty() && !end.console.is_empty()) {
                best = Some(end);
            }
        }
        best.ok_or_else(|| Error::Lab("no way to start a guest".to_owned()))
    }

    async fn run_once(
        &self,
        way: Way,
        guest: &Guest<'_>,
        memory: &Memory,
        on_frame: &mut dyn FnMut(&Frame),
    ) -> Result<GuestEnd> {
        let (mut console_out, mut keyboard, console_in): (Box<dyn AsyncRead + Unpin>, _, _) =
            if guest.person.is_some() {
                let (ours, theirs) =
                    UnixStream::pair().map_err(|e| Error::kernel("serial port", "socketpair", e))?;
                let theirs = theirs.into_std().map_err(|e| Error::kernel("serial port", "dup", e))?;
                let (screen, keyboard) = ours.into_split();
                (Box::new(screen), Some(keyboard), theirs.into())
            } else {
                let (out, into) = port()?;
                (Box::new(out), None, into)
            };
        let (mut results_out, results_in) = port()?;
        let files = Files {
            console: console_in.as_raw_fd(),
            results: results_in.as_raw_fd(),
            kernel: memory.kernel.as_raw_fd(),
            vmlinux: memory.vmlinux.as_ref().map(AsRawFd::as_raw_fd),
            initramfs: memory.initramfs.as_raw_fd(),
        };
        let mut child = self.spawn(way, &self.arguments(way, guest, &files), &files)?;
        drop((console_in, results_in));
        let mut stderr = child.stderr.take().ok_or_else(|| Error::Lab("QEMU without stderr".to_owned()))?;

        let mut ports = Ports::default();
        let (mut said, mut typing) = (Vec::new(), Vec::new());
        let mut heard = Instant::now();
        let how = loop {
            let booted = !ports.frames.is_empty();
            let limit = match way.accelerator {
                _ if booted => self.frame_budget,
                Accelerator::Kvm if ports.console.is_empty() => KVM_SILENCE,
                _ => self.boot_budget,
            };
            // A person may take any time.
            let sits = guest.person.is_some_and(Person::sits);
            let (mut printed, mut reported) = ([0; 4096], [0; 4096]);
            tokio::select! {
                // What was reported first is heard first: it may seat the person.
                biased;
                n = some(&mut results_out, &mut reported) => if ports.report(&reported[..n], on_frame) {
                    heard = Instant::now();
                },
                n = some(&mut console_out, &mut printed) => {
                    ports.console.push(&printed[..n]);
                    guest.person.inspect(|person| person.show(&printed[..n]));
                }
                keys = typed(guest.person, &typing) => typing = keys,
                n = press(&mut keyboard, &typing) => drop(typing.drain(..n)),
                status = child.wait() => {
                    let status = status.map_err(|e| Error::kernel(PROGRAM, "wait", e))?;
                    break if status.success() { End::PoweredOff } else { End::Died { status, said: String::new() } };
                }
                () = sleep_until(heard + limit), if !sits => {
                    child.kill().await.map_err(|e| Error::kernel(PROGRAM, "kill", e))?;
                    break if booted { End::Hung { waited: limit } } else { End::NeverBooted { waited: limit } };
                }
            }
        };
        // QEMU is gone: what it wrote last is still in the pipes.
        let mut rest = Vec::new();
        let _ = console_out.read_to_end(&mut rest).await;
        ports.console.push(&rest);
        guest.person.inspect(|person| person.show(&rest));
        rest.clear();
        let _ = results_out.read_to_end(&mut rest).await;
        ports.report(&rest, on_frame);
        let _ = stderr.read_to_end(&mut said).await;
        Ok(ports.end(way, how, &said, on_frame))
    }

    fn spawn(&self, way: Way, arguments: &[String], files: &Files) -> Result<Child> {
        let (console, results) = (Some(files.console), Some(files.results));
        let handed = [console, results, Some(files.kernel), files.vmlinux, Some(files.initramfs)];
        let parent = nix::unistd::getpid();
        let mut command = Command::new(self.program());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        // SAFETY: between fork and exec the closure calls prctl, getppid, fcntl,
        // getcpu and sched_setaffinity only, which are async-signal-safe, and allocates nothing. The
        // descriptors belong to the caller, who keeps them open until here.
        #[allow(unsafe_code, reason = "the child must ask for its parent's death signal itself")]
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if nix::unistd::getppid() != parent {
                    return Err(nix::Error::ESRCH.into());
                }
                for fd in handed.into_iter().flatten() {
                    let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                // Under KVM each thread may want a processor of its own.
                if way.accelerator == Accelerator::Tcg {
                    let _ = stay_here();
                }
                Ok(())
            });
        }
        command.spawn().map_err(|e| Error::kernel(self.program().display().to_string(), "exec", e))
    }
}

/// Keeps the process on the processor it is on; the scheduler has just put it
/// on the idlest.
///
/// QEMU's main loop and its emulated processor take turns at every jump of
/// virtual time, 60,000 times in five days. On two of the host's processors each
/// turn wakes one that sleeps: a guest that idled for five days took 16 s, and on
/// one processor 10 s.
fn stay_here() -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// What QEMU reads and no file holds.
struct Memory {
    kernel: File,
    vmlinux: Option<File>,
    initramfs: File,
}

/// What came out of the two serial ports so far.
#[derive(Default)]
struct Ports {
    console: Console,
    decoder: Decoder,
    frames: Vec<Frame>,
}

impl Ports {
    /// Whether a frame ended in these bytes.
    fn report(&mut self, bytes: &[u8], on_frame: &mut dyn FnMut(&Frame)) -> bool {
        let frames = self.decoder.push(bytes);
        frames.iter().for_each(on_frame);
        let any = !frames.is_empty();
        self.frames.extend(frames);
        any
    }

    fn end(mut self, way: Way, how: End, said: &[u8], on_frame: &mut dyn FnMut(&Frame)) -> GuestEnd {
        let frames = self.decoder.finish();
        frames.iter().for_each(on_frame);
        self.frames.extend(frames);
        let how = match (self.console.panic(), how) {
            (Some(line), _) => End::Panicked(line),
            (None, End::Died { status, .. }) => {
                End::Died { status, said: String::from_utf8_lossy(said).into_owned() }
            }
            (None, how) => how,
        };
        GuestEnd { way, how, frames: self.frames, noise: self.decoder.noise(), console: self.console }
    }
}

/// The next keys of a person whose last ones have been pressed.
async fn typed(person: Option<&Person>, typing: &[u8]) -> Vec<u8> {
    match person {
        Some(person) if typing.is_empty() => person.keys().await,
        _ => pending().await,
    }
}

/// Presses keys, and says how many the guest's port has taken.
async fn press(keyboard: &mut Option<OwnedWriteHalf>, keys: &[u8]) -> usize {
    match keyboard {
        // Of a guest that is gone its end will tell.
        Some(keyboard) if !keys.is_empty() => keyboard.write(keys).await.unwrap_or(keys.len()),
        _ => pending().await,
    }
}

/// The next bytes of a port; never returns at its end.
async fn some(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> usize {
    poll_fn(|cx| {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *pipe).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(buffer.filled().len()),
            // The end of the pipe is QEMU's end, and that is waited for.
            _ => Poll::Pending,
        }
    })
    .await
}

/// The two ends of a serial port: what this process reads, what QEMU opens.
fn port() -> Result<(Receiver, OwnedFd)> {
    let failed = |tried: &'static str| move |e| Error::kernel("serial port", tried, e);
    let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("pipe2")(e.into()))?;
    // The size is a wish: a user with many pipes gets the usual 64 KiB.
    let _ = fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((Receiver::from_owned_fd(out).map_err(failed("await the pipe"))?, into))
}

/// A file that has no name and goes with its last descriptor.
fn in_memory(name: &'static str, bytes: &[u8]) -> Result<File> {
    let failed = |tried: &'static str| move |e| Error::kernel(name, tried, e);
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| failed("memfd_create")(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(failed("write"))?;
    Ok(file)
}

/// Whether /dev/kvm may be opened, which does not mean that it boots a guest:
/// only the guest's first frame tells.
fn kvm_opens() -> bool {
    File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::qemu::Board;
    use super::*;

    const TCG: Way = Way { board: Board::Microvm, accelerator: Accelerator::Tcg };

    #[test]
    fn a_failure_ends_with_the_consoles_last_lines() {
        let mut console = Console::default();
        console.push(b"one\r\ntwo\r\n");
        let end = GuestEnd {
            way: TCG,
            how: End::Hung { waited: Duration::from_secs(9) },
            frames: Vec::new(),
            noise: 0,
            console,
        };
        assert_eq!(end.failure().unwrap(), "the guest (microvm) reported nothing more in 9 s\none\ntwo");
    }

    /// The end of a guest that prints, does this, and then spins as a kernel
    /// does that waits for a device; in the script `frame` is a frame's file,
    /// `results` the second serial port.
    async fn end_of(does: &str, on_frame: &mut dyn FnMut(&Frame)) -> GuestEnd {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (program, frame) = (dir.path().join("qemu"), dir.path().join("frame"));
        let script = format!(
            "#!/bin/sh
            [ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.0' && exit
            for word; do case $word in
                file,id=console,*) echo Booting > \"${{word##*path=}}\" ;;
                file,id=results,*) results=${{word##*path=}} ;;
            esac; done
            frame={}
            {does}
            while :; do :; done",
            frame.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&frame, Frame::new(1, "ended").encode()).unwrap();
        let mut qemu = Qemu::at(program).unwrap();
        qemu.boot_budget = Duration::from_secs(2);
        qemu.frame_budget = Duration::from_secs(5);
        let guest = Guest { kernel: b"no kernel", initramfs: b"", append: "", person: None };
        qemu.run(&guest, on_frame).await.unwrap()
    }

    #[tokio::test]
    async fn every_frame_gives_a_guest_its_time_anew() {
        // The last comes after 6 s, past a budget of 5 s.
        let does = "for n in 0 1 1 1 1 1 1; do sleep $n; cat $frame > $results; done";
        let begun = Instant::now();
        let mut frames = 0;
        let end = end_of(does, &mut |_| frames += 1).await;
        assert_eq!((end.how, frames), (End::Hung { waited: Duration::from_secs(5) }, 7));
        assert!(begun.elapsed() >= Duration::from_secs(11), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_hangs_is_ended_and_told_of() {
        let end = end_of("", &mut |_| panic!("it reports nothing")).await;
        assert_eq!(end.how, End::NeverBooted { waited: Duration::from_secs(2) });
        assert_eq!(end.failure().unwrap(), "the guest (microvm) did not boot in 2 s\nBooting");
    }
}
