//! QEMU: its command line, and one guest from its start to its end.
//!
//! A guest has no network, no disk and no root file system. Its kernel prints
//! on the first serial port, init reports on the second. Nothing is written
//! to a file: the initramfs is handed over in memory, the ports are pipes.
//!
//! Reading: QEMU docs/devel/tcg-icount.rst ("TCG Instruction Counting"),
//! docs/system/i386/microvm.rst; prctl(2), PR_SET_PDEATHSIG.

use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::console::Console;
use super::frame::{Decoder, Frame};
use crate::error::{Error, Result};

/// The emulator's name on PATH.
const PROGRAM: &str = "qemu-system-x86_64";

/// The first version whose microvm has ACPI and whose flags are all used here.
const VERSION_MIN: (u32, u32) = (5, 2);

/// `-icount shift=3`: an instruction takes 2^3 ns, 125 million a second. One
/// instruction in 2 ns (shift=1) makes the kernel spin four times as often
/// through the 100 ms in which it calibrates its local APIC.
const ICOUNT: &str = "shift=3,sleep=off,align=off";

/// Under instruction counting QEMU's time stamp counter counts virtual ns.
const VIRTUAL_TSC_KHZ: u64 = 1_000_000;

/// A pipe that holds more than a guest prints while this process waits for a
/// CPU. A serial port whose reader is late shows itself in the guest's time.
const PIPE_SIZE: i32 = 1 << 20;

/// How many lines of the console explain a failure.
const LAST_LINES: usize = 10;

/// How time passes in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Time is instructions, and jumps to the next timer when all sleep. The
    /// seed is all the randomness that the guest has: the same seed, the same
    /// bytes.
    Virtual {
        /// Another seed: other ports, hash keys and races.
        seed: u64,
    },
    /// The host's time.
    Real,
}

/// The board that QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// No firmware worth the name, no PCI: the fastest to boot.
    Microvm,
    /// The i440FX of 1996, which every kernel knows.
    Pc,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU itself.
    Tcg,
    /// The host's processor.
    Kvm,
}

/// One way to start a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The board.
    pub board: Board,
    /// The processor.
    pub accelerator: Accelerator,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.board {
            Board::Microvm => "microvm",
            Board::Pc => "pc",
        })?;
        f.write_str(match self.accelerator {
            Accelerator::Tcg => "",
            Accelerator::Kvm => " with KVM",
        })
    }
}

/// A QEMU that was found, and the guests it shall run.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    version: (u32, u32),
    /// The guest's memory, MiB.
    pub memory: u32,
    /// How time passes.
    pub clock: Clock,
    /// How long a guest may take, seconds of the host's clock.
    pub budget: Duration,
    /// How long a guest may take to its first frame, seconds of the host's
    /// clock: what hangs as it boots is started again, another way.
    pub boot_budget: Duration,
}

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
    /// It ran past its budget.
    Hung {
        /// Seconds of the host's clock.
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
                format!("the guest ({}) ran past its budget of {} s", self.way, waited.as_secs())
            }
            End::Died { status, said } => format!("QEMU ({}): {status}: {}", self.way, said.trim_end()),
        };
        let lines = self.console.last_lines(LAST_LINES);
        let lines = if lines.is_empty() { vec!["(an empty console)".to_owned()] } else { lines };
        Some(format!("{what}\n{}", lines.join("\n")))
    }

    /// Whether another way might do better: nothing was reported yet.
    fn never_spoke(&self) -> bool {
        self.frames.is_empty() && !matches!(self.how, End::PoweredOff)
    }
}

impl Qemu {
    /// Looks for QEMU on PATH.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none, or an old one.
    pub fn find() -> Result<Self> {
        let install = "install the package qemu-system-x86 (Debian, Ubuntu) or qemu-kvm (Fedora, RHEL)";
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join(PROGRAM))
            .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
            .ok_or_else(|| Error::missing(PROGRAM, install))?;
        let output = std::process::Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|e| Error::kernel(program.display().to_string(), "exec", e))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text)
            .ok_or_else(|| Error::Lab(format!("{} --version said {text:?}", program.display())))?;
        if version < VERSION_MIN {
            let what = format!(
                "QEMU {}.{} or later (this is {}.{})",
                VERSION_MIN.0, VERSION_MIN.1, version.0, version.1
            );
            return Err(Error::missing(what, install));
        }
        Ok(Self {
            program,
            version,
            memory: 256,
            clock: Clock::Virtual { seed: 1 },
            budget: Duration::from_secs(300),
            boot_budget: Duration::from_secs(60),
        })
    }

    /// Where it was found.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Major and minor version.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The ways to start a guest, best first; the next one is tried when a
    /// guest did not get as far as its first frame.
    ///
    /// Without instruction counting a guest under TCG calibrates its clock
    /// against one that the host may stop at any time, and one boot in ten
    /// fails of it: it gets several chances.
    #[must_use]
    pub fn ways(&self, kvm: bool) -> Vec<Way> {
        let tcg = |board| Way { board, accelerator: Accelerator::Tcg };
        let with_kvm = Way { board: Board::Microvm, accelerator: Accelerator::Kvm };
        match self.clock {
            Clock::Virtual { .. } => vec![tcg(Board::Microvm), tcg(Board::Pc)],
            Clock::Real => kvm
                .then_some(with_kvm)
                .into_iter()
                .chain([tcg(Board::Microvm), tcg(Board::Microvm), tcg(Board::Pc), tcg(Board::Pc)])
                .collect(),
        }
    }

    /// The kernel command line of a guest. `more` comes last.
    #[must_use]
    pub fn kernel_command_line(&self, way: Way, more: &str) -> String {
        let mut words = vec![
            "console=ttyS0".to_owned(),
            // A triple fault: the one reset that all boards understand.
            "reboot=t panic=-1".to_owned(),
            // Of no use in a guest that lives for seconds, and slow to emulate.
            "nokaslr mitigations=off cryptomgr.notests nowatchdog audit=0 transparent_hugepage=never"
                .to_owned(),
            // The self test of the jitter RNG: a second of every boot since 6.x.
            // kcompactd0: two wake-ups a second on 5.10, whatever its sysctl says.
            "initcall_blacklist=jent_mod_init,kcompactd_init".to_owned(),
            // psi_avgs_work and flush_memcg_stats_dwork: every 2 s.
            "psi=0 cgroup_disable=memory".to_owned(),
            // kdamond.0, from 6.18: every 4 s.
            "damon_stat.enabled=0".to_owned(),
        ];
        match (self.clock, way.accelerator) {
            (_, Accelerator::Kvm) => {}
            (Clock::Virtual { seed }, _) => {
                words.push(format!("tsc=reliable tsc_early_khz={VIRTUAL_TSC_KHZ} no_timer_check"));
                // start_kernel() mixes the command line into the first randomness.
                words.push(format!("random.trust_cpu=off random.trust_bootloader=off faultlab.seed={seed}"));
            }
            (Clock::Real, Accelerator::Tcg) => {
                words.push(format!("tsc=reliable tsc_early_khz={} no_timer_check", host_tsc_khz()));
            }
        }
        if !more.is_empty() {
            words.push(more.to_owned());
        }
        words.join(" ")
    }

    /// QEMU's arguments.
    #[must_use]
    pub fn arguments(&self, way: Way, guest: &Guest<'_>, files: &Files) -> Vec<String> {
        let mut words = Words(Vec::new());
        words.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
        words.option("-display", "none").option("-monitor", "none");
        words.option("-smp", "1").option("-m", self.memory.to_string());
        words.option(
            "-M",
            match way.board {
                // The 8254 and the 8259 are there for kernels that calibrate
                // with them; init stops the one that ticks.
                Board::Microvm => "microvm,x-option-roms=off,rtc=on,pit=on,pic=on",
                Board::Pc => "pc,usb=off",
            },
        );
        match (self.clock, way.accelerator) {
            (_, Accelerator::Kvm) => {
                words.option("-accel", "kvm").option("-cpu", "host");
            }
            (Clock::Real, Accelerator::Tcg) => {
                words.option("-accel", "tcg,thread=single").option("-cpu", "max");
            }
            (Clock::Virtual { seed }, Accelerator::Tcg) => {
                words.option("-accel", "tcg,thread=single");
                // With less than `max` (no ARAT) a guest never stops its tick.
                words.option("-cpu", "max,-rdrand,-rdseed");
                words.option("-icount", ICOUNT);
                words.option("-rtc", "base=2026-01-01T00:00:00,clock=vm");
                // QEMU takes 32 bits; the command line carries the whole seed.
                words.option("-seed", (seed & u64::from(u32::MAX)).to_string());
            }
        }
        for (name, fd) in [("console", files.console), ("results", files.results)] {
            words.option("-chardev", format!("file,id={name},path=/dev/fd/{fd}"));
        }
        words.option("-serial", "chardev:console");
        // microvm makes one serial port only by itself; this is COM2 on both boards.
        words.option("-device", "isa-serial,chardev=results,iobase=0x2f8,irq=3");
        words.option("-kernel", guest.kernel.display().to_string());
        words.option("-initrd", format!("/dev/fd/{}", files.initramfs));
        words.option("-append", self.kernel_command_line(way, guest.append));
        words.0
    }

    /// Runs a guest to its end. Every frame goes to `on_frame` as it comes.
    ///
    /// QEMU ends with this thread, whatever ends the thread.
    ///
    /// # Errors
    /// Where QEMU cannot be started. What goes wrong in the guest is no error
    /// but a [`GuestEnd`].
    pub async fn run(&self, guest: &Guest<'_>, on_frame: &mut dyn FnMut(&Frame)) -> Result<GuestEnd> {
        let kvm = self.clock == Clock::Real && kvm_opens();
        let mut best: Option<GuestEnd> = None;
        for way in self.ways(kvm) {
            let end = self.run_once(way, guest, on_frame).await?;
            if !end.never_spoke() {
                return Ok(end);
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
        on_frame: &mut dyn FnMut(&Frame),
    ) -> Result<GuestEnd> {
        let initramfs = in_memory(guest.initramfs)?;
        let (mut console_out, console_in) = port()?;
        let (mut results_out, results_in) = port()?;
        let files = Files {
            console: console_in.as_raw_fd(),
            results: results_in.as_raw_fd(),
            initramfs: initramfs.as_raw_fd(),
        };
        let mut child = self.spawn(&self.arguments(way, guest, &files), &files)?;
        drop((initramfs, console_in, results_in));
        let mut stderr = child.stderr.take().ok_or_else(|| Error::Lab("QEMU without stderr".to_owned()))?;

        let mut ports = Ports::default();
        let mut said = Vec::new();
        let start = Instant::now();
        let how = loop {
            let booted = !ports.frames.is_empty();
            let limit = if booted { self.budget } else { self.boot_budget.min(self.budget) };
            let (mut printed, mut reported) = ([0; 4096], [0; 4096]);
            tokio::select! {
                n = some(&mut console_out, &mut printed) => ports.console.push(&printed[..n]),
                n = some(&mut results_out, &mut reported) => ports.report(&reported[..n], on_frame),
                status = child.wait() => {
                    let status = status.map_err(|e| Error::kernel(PROGRAM, "wait", e))?;
                    break if status.success() { End::PoweredOff } else { End::Died { status, said: String::new() } };
                }
                () = sleep_until(start + limit) => {
                    child.kill().await.map_err(|e| Error::kernel(PROGRAM, "kill", e))?;
                    break if booted { End::Hung { waited: limit } } else { End::NeverBooted { waited: limit } };
                }
            }
        };
        // QEMU is gone: what it wrote last is still in the pipes.
        let mut rest = Vec::new();
        let _ = console_out.read_to_end(&mut rest).await;
        ports.console.push(&rest);
        rest.clear();
        let _ = results_out.read_to_end(&mut rest).await;
        ports.report(&rest, on_frame);
        let _ = stderr.read_to_end(&mut said).await;
        Ok(ports.end(way, how, &said, on_frame))
    }

    fn spawn(&self, arguments: &[String], files: &Files) -> Result<Child> {
        let handed = [files.console, files.results, files.initramfs];
        let parent = nix::unistd::getpid();
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        // SAFETY: between fork and exec the closure calls prctl, getppid and
        // fcntl only, which are async-signal-safe, and allocates nothing. The
        // descriptors belong to the caller, who keeps them open until here.
        #[allow(unsafe_code, reason = "the child must ask for its parent's death signal itself")]
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if nix::unistd::getppid() != parent {
                    return Err(nix::Error::ESRCH.into());
                }
                for fd in handed {
                    let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            });
        }
        command.spawn().map_err(|e| Error::kernel(self.program.display().to_string(), "exec", e))
    }
}

/// What a guest is made of.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// A bzImage, or a vmlinux with a PVH note, which spares the guest the
    /// unpacking: a quarter of its boot.
    pub kernel: &'a Path,
    /// A cpio archive.
    pub initramfs: &'a [u8],
    /// What the kernel command line ends with.
    pub append: &'a str,
}

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// Where ttyS0 is written to.
    pub console: RawFd,
    /// Where ttyS1 is written to.
    pub results: RawFd,
    /// Where the initramfs is read from.
    pub initramfs: RawFd,
}

/// What came out of the two serial ports so far.
#[derive(Default)]
struct Ports {
    console: Console,
    decoder: Decoder,
    frames: Vec<Frame>,
}

impl Ports {
    fn report(&mut self, bytes: &[u8], on_frame: &mut dyn FnMut(&Frame)) {
        let frames = self.decoder.push(bytes);
        frames.iter().for_each(on_frame);
        self.frames.extend(frames);
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

struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, flag: &str, value: impl Into<String>) -> &mut Self {
        self.0.push(flag.to_owned());
        self.0.push(value.into());
        self
    }
}

/// The next bytes of a pipe; never returns at its end.
async fn some(pipe: &mut Receiver, buffer: &mut [u8]) -> usize {
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
fn in_memory(bytes: &[u8]) -> Result<File> {
    let failed = |tried: &'static str| move |e| Error::kernel("initramfs", tried, e);
    let fd =
        memfd_create("initramfs", MFdFlags::MFD_CLOEXEC).map_err(|e| failed("memfd_create")(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(failed("write"))?;
    Ok(file)
}

/// Whether /dev/kvm may be opened, which does not mean that it boots a guest:
/// only the guest's first frame tells.
fn kvm_opens() -> bool {
    File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(['.', ' ', '\n', '-', '(']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The rate of this processor's time stamp counter, which a guest under TCG
/// sees unless instructions are counted.
fn host_tsc_khz() -> u64 {
    let now = || {
        // SAFETY: RDTSC has no operands in memory and no side effects; every
        // x86-64 processor has it.
        #[allow(unsafe_code, reason = "the counter is read by an instruction only")]
        let ticks = unsafe { core::arch::x86_64::_rdtsc() };
        (ticks, std::time::Instant::now())
    };
    let (first, start) = now();
    let enough = Duration::from_millis(10);
    loop {
        let (last, end) = now();
        let passed = end - start;
        if passed >= enough {
            let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
            return (last - first) * 1000 / micros;
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu(clock: Clock) -> Qemu {
        Qemu {
            program: PROGRAM.into(),
            version: VERSION_MIN,
            memory: 256,
            clock,
            budget: Duration::from_secs(1),
            boot_budget: Duration::from_secs(1),
        }
    }

    fn arguments(clock: Clock, way: Way) -> String {
        let guest = Guest { kernel: Path::new("/k/vmlinuz"), initramfs: b"", append: "faultlab.more" };
        let files = Files { console: 7, results: 8, initramfs: 9 };
        qemu(clock).arguments(way, &guest, &files).join(" ")
    }

    const TCG: Way = Way { board: Board::Microvm, accelerator: Accelerator::Tcg };
    const KVM: Way = Way { board: Board::Microvm, accelerator: Accelerator::Kvm };

    #[test]
    fn virtual_time_counts_instructions_and_takes_randomness_from_the_seed() {
        assert_eq!(
            arguments(Clock::Virtual { seed: 7 }, TCG),
            "-nodefaults -no-user-config -no-reboot -display none -monitor none -smp 1 -m 256 \
             -M microvm,x-option-roms=off,rtc=on,pit=on,pic=on -accel tcg,thread=single \
             -cpu max,-rdrand,-rdseed -icount shift=3,sleep=off,align=off \
             -rtc base=2026-01-01T00:00:00,clock=vm -seed 7 \
             -chardev file,id=console,path=/dev/fd/7 -chardev file,id=results,path=/dev/fd/8 \
             -serial chardev:console -device isa-serial,chardev=results,iobase=0x2f8,irq=3 \
             -kernel /k/vmlinuz -initrd /dev/fd/9 -append console=ttyS0 reboot=t panic=-1 nokaslr \
             mitigations=off cryptomgr.notests nowatchdog audit=0 transparent_hugepage=never \
             initcall_blacklist=jent_mod_init,kcompactd_init psi=0 cgroup_disable=memory \
             damon_stat.enabled=0 tsc=reliable tsc_early_khz=1000000 no_timer_check \
             random.trust_cpu=off random.trust_bootloader=off faultlab.seed=7 faultlab.more"
        );
    }

    #[test]
    fn real_time_counts_no_instructions() {
        for way in [TCG, KVM] {
            let line = arguments(Clock::Real, way);
            assert!(!line.contains("icount") && !line.contains("seed"), "{line}");
        }
        assert!(arguments(Clock::Real, KVM).contains("-accel kvm -cpu host"));
        assert!(!arguments(Clock::Real, KVM).contains("tsc"));
    }

    #[test]
    fn a_guest_has_no_network_and_no_disk() {
        for clock in [Clock::Real, Clock::Virtual { seed: 0 }] {
            for way in qemu(clock).ways(true) {
                let line = arguments(clock, way);
                assert!(line.starts_with("-nodefaults -no-user-config"), "{line}");
                assert!(
                    !line.contains("-net")
                        && !line.contains("-drive")
                        && line.matches("-device").count() == 1
                );
            }
        }
    }

    #[test]
    fn virtual_time_never_asks_for_kvm() {
        let ways = qemu(Clock::Virtual { seed: 0 }).ways(true);
        assert!(ways.iter().all(|way| way.accelerator == Accelerator::Tcg));
        assert_eq!(qemu(Clock::Real).ways(true)[0].accelerator, Accelerator::Kvm);
        assert_eq!(qemu(Clock::Real).ways(false)[0].accelerator, Accelerator::Tcg);
    }

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        assert_eq!(
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some((7, 2))
        );
        assert_eq!(parse_version("QEMU emulator version 10.0.0\n"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 4.2-50.module (qemu-kvm)"), Some((4, 2)));
        assert_eq!(parse_version("usage:"), None);
    }

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
        assert_eq!(end.failure().unwrap(), "the guest (microvm) ran past its budget of 9 s\none\ntwo");
    }
}
