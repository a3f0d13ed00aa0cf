//! One QEMU process, from start to end.
//!
//! The guest is not trusted: it may print and report anything, at any rate. What is
//! kept of its output is bounded, frames are passed on and not kept, and other tasks of
//! this thread, such as the signal handler, run after each read of the second port.
//!
//! Reading: prctl(2), PR_SET_PDEATHSIG; memfd_create(2).

use std::fs::File;
use std::future::pending;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::budget::{Budgets, Watch};
use super::command_line::{Files, Guest};
use super::end::{ExitReason, GuestEnd};
use super::ports::{LEFT_IN_A_HURRY, LEFT_IN_PIPES, OnFrame, Ports, port, rest, some};
use super::qemu::{Accelerator, GuestClock, LaunchMode, PROGRAM, Qemu};
use super::serial_console::SerialConsole;
use faultlab_base::error::{Error, Result};
use faultlab_kernels::vmlinux;

/// How long a guest under KVM may print nothing, in seconds of the host's clock. If
/// KVM works, the first line appears within a fraction of a second.
const KVM_SILENCE: Duration = Duration::from_secs(5);

/// Whether a guest under KVM failed to boot in this process. The next one would
/// fail too.
static KVM_FAILED: AtomicBool = AtomicBool::new(false);

/// Ready when a guest must be ended.
pub type Interrupted<'a> = Pin<&'a mut dyn Future<Output = ()>>;

impl Qemu {
    /// Runs a guest to its end. Every frame is passed to `on_frame` as it arrives.
    /// If that refuses it, the guest is ended.
    ///
    /// The kernel kills QEMU when this thread ends (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// If QEMU cannot be started. A failure in the guest is not an error but a
    /// [`GuestEnd`].
    pub async fn run(&self, guest: &Guest<'_>, on_frame: &mut OnFrame<'_>) -> Result<GuestEnd> {
        self.run_until(guest, on_frame, &mut (pin!(pending()) as Interrupted<'_>)).await
    }

    /// The same, but ends the guest when `interrupted` is ready.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(
        &self,
        guest: &Guest<'_>,
        on_frame: &mut OnFrame<'_>,
        interrupted: &mut Interrupted<'_>,
    ) -> Result<GuestEnd> {
        let kvm = self.clock == GuestClock::Real && kvm_opens() && !KVM_FAILED.load(Ordering::Relaxed);
        let memory = Memory {
            kernel: in_memory("kernel image", guest.kernel)?,
            vmlinux: vmlinux::unpack(guest.kernel).map(|v| in_memory("vmlinux", &v)).transpose()?,
            initramfs: in_memory("initramfs", guest.initramfs)?,
        };
        let mut best: Option<GuestEnd> = None;
        for mode in self.modes(kvm) {
            let end = self.run_once(mode, guest, &memory, on_frame, interrupted).await?;
            if !end.never_spoke() {
                return Ok(end);
            }
            if mode.accelerator == Accelerator::Kvm {
                KVM_FAILED.store(true, Ordering::Relaxed);
            }
            // If all modes fail, report the one that printed something.
            if best.as_ref().is_none_or(|best| best.console.is_empty() && !end.console.is_empty()) {
                best = Some(end);
            }
        }
        best.ok_or_else(|| Error::Lab("no way to start a guest".to_owned()))
    }

    async fn run_once(
        &self,
        mode: LaunchMode,
        guest: &Guest<'_>,
        memory: &Memory,
        on_frame: &mut OnFrame<'_>,
        interrupted: &mut Interrupted<'_>,
    ) -> Result<GuestEnd> {
        let (mut console_out, mut keyboard, console_in): (Box<dyn AsyncRead + Unpin>, _, _) =
            if guest.serial.is_some() {
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
        let mut child = self.spawn(mode, &self.arguments(mode, guest, &files), &files)?;
        drop((console_in, results_in));
        let mut stderr = child.stderr.take().ok_or_else(|| Error::Lab("QEMU without stderr".to_owned()))?;

        let mut ports = Ports::default();
        let mut typing = Vec::new();
        let mut watch = Watch::on(child.id(), mode.measure(self.clock));
        let how = loop {
            let budgets = self.budgets(mode, guest, &ports);
            // A guest with an attached user has no time limit.
            let sits = guest.serial.is_some_and(SerialConsole::is_attached);
            // Checked here, because a guest that keeps its ports busy starves the last
            // branches below.
            if let Some(over) = watch.over(budgets).filter(|_| !sits) {
                child.kill().await.map_err(|e| Error::kernel(PROGRAM, "kill", e))?;
                break ports.overdue(over);
            }
            let (mut printed, mut reported, mut said) = ([0; 4096], [0; 4096], [0; 4096]);
            tokio::select! {
                // First the interruption: a guest that floods its ports must not delay
                // it. Then reports: one of them attaches the console.
                biased;
                () = &mut *interrupted => {
                    child.kill().await.map_err(|e| Error::kernel(PROGRAM, "kill", e))?;
                    break ExitReason::Interrupted;
                }
                n = some(&mut results_out, &mut reported) => {
                    match ports.report(&reported[..n], on_frame) {
                        Ok(0) => {}
                        Ok(_) => watch.heard(),
                        Err(why) => {
                            child.kill().await.map_err(|e| Error::kernel(PROGRAM, "kill", e))?;
                            break ExitReason::Refused(why.to_string());
                        }
                    }
                    yield_now().await;
                }
                n = some(&mut console_out, &mut printed) => {
                    ports.console.push(&printed[..n]);
                    guest.serial.inspect(|console| console.show(&printed[..n]));
                }
                n = some(&mut stderr, &mut said) => ports.complain(&said[..n]),
                keys = typed(guest.serial, &typing) => typing = keys,
                n = press(&mut keyboard, &typing) => drop(typing.drain(..n)),
                status = child.wait() => {
                    let status = status.map_err(|e| Error::kernel(PROGRAM, "wait", e))?;
                    break if status.success() { ExitReason::PoweredOff } else { ExitReason::Died { status, said: String::new() } };
                }
                () = sleep(watch.look_in(budgets)) => {}
            }
        };
        // QEMU has ended: its last output is still in the pipes.
        let wait = if how == ExitReason::Interrupted { LEFT_IN_A_HURRY } else { LEFT_IN_PIPES };
        let last = rest(&mut console_out, wait).await;
        ports.console.push(&last);
        guest.serial.inspect(|console| console.show(&last));
        ports.complain(&rest(&mut stderr, wait).await);
        let last = match how {
            ExitReason::Refused(_) => vec![],
            _ => rest(&mut results_out, wait).await,
        };
        Ok(ports.end(mode, how, &last, on_frame))
    }

    /// The current time limits of a guest.
    fn budgets(&self, mode: LaunchMode, guest: &Guest<'_>, ports: &Ports) -> Budgets {
        let frame = match mode.accelerator {
            _ if ports.frames > 0 => self.frame_budget,
            Accelerator::Kvm if ports.console.is_empty() => KVM_SILENCE,
            _ => self.boot_budget,
        };
        let tasks = self.task_budget.saturating_mul(guest.tasks);
        Budgets { frame, all: self.boot_budget.saturating_add(tasks) }
    }

    fn spawn(&self, mode: LaunchMode, arguments: &[String], files: &Files) -> Result<Child> {
        let (console, results) = (Some(files.console), Some(files.results));
        let handed = [console, results, Some(files.kernel), files.vmlinux, Some(files.initramfs)];
        let parent = nix::unistd::getpid();
        let mut command = Command::new(self.program());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C at a terminal signals the whole foreground process group. QEMU must not
        // get that signal: it would exit with 0, as after a power-off of the guest.
        command.process_group(0).kill_on_drop(true);
        // SAFETY: between fork and exec the closure calls prctl, getppid, fcntl,
        // getcpu and sched_setaffinity only, which are async-signal-safe, and
        // allocates nothing. The descriptors belong to the caller, who keeps them
        // open until here.
        #[allow(unsafe_code, reason = "the child must ask for its parent's death signal itself")]
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // The parent may have died before prctl was called.
                if nix::unistd::getppid() != parent {
                    return Err(nix::Error::ESRCH.into());
                }
                for fd in handed.into_iter().flatten() {
                    let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                // Under KVM the threads of QEMU may run in parallel.
                if mode.accelerator == Accelerator::Tcg {
                    let _ = stay_here();
                }
                Ok(())
            });
        }
        command.spawn().map_err(|e| Error::kernel(self.program().display().to_string(), "exec", e))
    }
}

/// Pins the process to its current processor, which the scheduler has just chosen as
/// the idlest.
///
/// At every jump of virtual time QEMU switches between its main loop and its emulated
/// processor, 60,000 times in five days. On two host processors each switch wakes a
/// sleeping processor: five idle days took 16 s, and 10 s on one processor.
fn stay_here() -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// QEMU's input files, as memfds.
struct Memory {
    kernel: File,
    vmlinux: Option<File>,
    initramfs: File,
}

/// The next input of a console, once the guest has taken `typing`.
async fn typed(console: Option<&SerialConsole>, typing: &[u8]) -> Vec<u8> {
    match console {
        Some(console) if typing.is_empty() => console.keys().await,
        _ => pending().await,
    }
}

/// Writes input to the guest's port, and returns how many bytes it has accepted.
async fn press(keyboard: &mut Option<OwnedWriteHalf>, keys: &[u8]) -> usize {
    match keyboard {
        // An error means that QEMU has ended, which run_once() notices.
        Some(keyboard) if !keys.is_empty() => keyboard.write(keys).await.unwrap_or(keys.len()),
        _ => pending().await,
    }
}

/// A memfd with these bytes.
fn in_memory(name: &'static str, bytes: &[u8]) -> Result<File> {
    let failed = |tried: &'static str| move |e| Error::kernel(name, tried, e);
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| failed("memfd_create")(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(failed("write"))?;
    Ok(file)
}

/// Whether /dev/kvm can be opened. A guest may still fail to boot under it: only its
/// first frame proves that KVM works.
fn kvm_opens() -> bool {
    File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Measure, Spent};
    use super::*;
    use crate::protocol::Frame;

    /// The end of a guest that prints, runs `does`, and then spins like a kernel
    /// that waits for a device; in the script `frame` is a frame's file, `results`
    /// the second serial port.
    async fn end_of(does: &str, on_frame: &mut OnFrame<'_>) -> GuestEnd {
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
            # Until this process has used so many ticks of processor time: proc(5), utime and stime.
            used() {{ read -r stat < /proc/$$/stat; set -- $stat; used=$(({u14} + {u15})); }}
            burn() {{ used; until=$((used + $1)); while [ $used -lt $until ]; do used; done; }}
            {does}
            while :; do :; done",
            frame.display(),
            u14 = "${14}",
            u15 = "${15}",
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&frame, Frame::new(1, "ended").encode()).unwrap();
        let mut qemu = Qemu::at(program).unwrap();
        qemu.boot_budget = Duration::from_secs(1);
        qemu.frame_budget = Duration::from_secs(1);
        let guest = Guest { kernel: b"no kernel", initramfs: b"", append: "", serial: None, tasks: 1 };
        qemu.run(&guest, on_frame).await.unwrap()
    }

    /// This many seconds of processor time.
    fn seconds(seconds: u64) -> Spent {
        Spent { time: Duration::from_secs(seconds), measure: Measure::Processor }
    }

    #[tokio::test]
    async fn every_frame_gives_a_guest_its_time_anew() {
        // The last comes after 1.6 s of processor time, past a budget of 1 s.
        let does = "for n in 0 40 40 40 40; do burn $n; cat $frame > $results; done";
        let mut frames = 0;
        let count = &mut |_: &Frame| {
            frames += 1;
            Ok(())
        };
        let end = end_of(does, count).await;
        assert_eq!((end.how, frames), (ExitReason::Hung { waited: seconds(1) }, 5));
    }

    #[tokio::test]
    async fn what_hangs_is_ended_and_told_of() {
        let end = end_of("", &mut |_| panic!("it reports nothing")).await;
        assert_eq!(end.how, ExitReason::NeverBooted { waited: seconds(1) });
        let failure = end.failure().unwrap();
        assert!(
            failure.starts_with("the guest (microvm) did not boot in 1 s of processor time; "),
            "{failure}"
        );
        assert!(failure.ends_with("\nBooting"), "{failure}");
    }

    #[tokio::test]
    async fn frames_without_end_are_not_kept_and_give_no_time() {
        // Two frames per turn, until the reader has closed the pipe.
        let does = "while :; do cat $frame $frame; done > $results";
        let mut left = 1000;
        let refuse = &mut |_: &Frame| {
            left -= 1;
            if left == 0 { Err(Error::Lab("that is enough".to_owned())) } else { Ok(()) }
        };
        let end = end_of(does, refuse).await;
        assert_eq!(end.how, ExitReason::Refused("that is enough".to_owned()));
    }

    #[tokio::test]
    async fn noise_without_end_ends_the_guest() {
        // `exec`: the flood ends with QEMU's process.
        let does = "exec cat /dev/zero > $results";
        let end = end_of(does, &mut |_| panic!("it reports nothing")).await;
        assert!(
            matches!(&end.how, ExitReason::Refused(why) if why.contains("were part of none")),
            "{:?}",
            end.how
        );
        assert!(end.noise > 1 << 20);
    }
}
