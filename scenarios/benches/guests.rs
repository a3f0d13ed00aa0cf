//! What a guest costs, and beside it the floor: the same QEMU, flags and
//! kernel with a static busybox as init, which ends the guest at once.
//!
//! `cargo bench --bench guests [SAMPLES]`; the kernel is the first of the
//! store, or the one that FAULTLAB_KERNEL names. A guest takes seconds: a
//! table of minimum and median says more than a sampling harness would.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lab::kernels::{KernelImage, Store};
use lab::machine::guest::{self, console, housekeeping, line, mounts};
use lab::machine::job::Job;
use lab::machine::protocol::{Frame, REPORT};
use lab::machine::vm::command_line::Guest;
use lab::machine::vm::elf::Executable;
use lab::machine::vm::initramfs::Initramfs;
use lab::machine::vm::ports::OnFrame;
use lab::machine::vm::run::GuestEvent;
use lab::machine::vm::{ExitReason, GuestClock, Qemu, Vm};
use lab::{Result, scenario};
use tokio::runtime::Runtime;

/// A quick scenario, every kernel's.
const SCENARIO: &str = "conntrack-beyond-window-reset";
/// One that waits for five days.
const FIVE_DAYS_SCENARIO: &str = "conntrack-idle-expiry";
/// The init of the floor.
const BUSYBOX: &str = "/bin/busybox";
/// A file of the guest that only sleeps.
const SLEEPER: &str = "/sleeper";
/// Five days, net.netfilter.nf_conntrack_tcp_timeout_established, in seconds.
const FIVE_DAYS: Duration = Duration::from_secs(432_000);
/// How many guests run side by side, and how many each lane runs.
const LANES: u32 = 2;
const GUESTS_A_LANE: u32 = 3;

fn main() -> ExitCode {
    if guest::asked() {
        return guest::main(&scenarios::CATALOGUE);
    }
    if std::process::id() == 1 && Path::new(SLEEPER).exists() {
        return sleeper();
    }
    // Cargo hands on its own --bench.
    let samples = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5);
    match table(samples) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn table(samples: usize) -> Result<()> {
    let store = Store::open()?;
    let id = match (std::env::var("FAULTLAB_KERNEL"), store.list()?.first()) {
        (Ok(id), _) => id,
        (Err(_), Some(entry)) => entry.id.clone(),
        (Err(_), None) => {
            println!("no kernel is in the store: `faultlab kernel add debian:trixie` adds one");
            return Ok(());
        }
    };
    let lane = Lane::new(Store::find(&id)?)?;
    println!("{id}, {samples} samples{:>29} {:>9}", "minimum", "median");
    match busybox("reboot -f")? {
        Some(archive) => row("floor: boot, busybox, power off", samples, || lane.floor(&archive))?,
        None => println!("no floor: {BUSYBOX} is not a static busybox (Debian: busybox-static)"),
    }
    row("from new() to init", samples, || lane.boot())?;
    row("from command to table", samples, || command(&id, SCENARIO))?;
    row("a scenario in a booted guest", samples, || lane.second_scenario())?;

    let start = Instant::now();
    std::thread::scope(|scope| {
        let lane = || (0..GUESTS_A_LANE).try_for_each(|_| command(&id, SCENARIO).map(drop));
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("no lane panics"))
    })?;
    let rate = f64::from(LANES * GUESTS_A_LANE) * 60.0 / start.elapsed().as_secs_f64();
    println!("{:<38} {rate:>11.0}", format!("guests a minute, {LANES} side by side"));

    // Nobody quiets the kernel of a busybox that sleeps: this takes long.
    if let Some(archive) = busybox(&format!("sleep {}; {BUSYBOX} reboot -f", FIVE_DAYS.as_secs()))? {
        row("floor: boot, busybox, five days", 1, || lane.floor(&archive))?;
    }
    row(&format!("{FIVE_DAYS_SCENARIO}, eight arms"), samples, || command(&id, FIVE_DAYS_SCENARIO))?;
    let days = lane.idle()?;
    let rate = FIVE_DAYS.as_secs_f64() / days.as_secs_f64();
    println!("{:<38} {:>9.2} s", "five idle days", days.as_secs_f64());
    println!("{:<38} {rate:>11.0}", "virtual seconds a second, idle");
    Ok(())
}

/// Prints what the least and the middle of the samples took.
fn row(what: &str, samples: usize, sample: impl Fn() -> Result<Duration>) -> Result<()> {
    let mut took = (0..samples.max(1)).map(|_| sample()).collect::<Result<Vec<_>>>()?;
    took.sort();
    let (least, middle) = (took[0].as_secs_f64(), took[took.len() / 2].as_secs_f64());
    println!("{what:<38} {least:>9.2} s {middle:>7.2} s");
    Ok(())
}

/// `faultlab run`, whole.
fn command(kernel: &str, scenario: &str) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_faultlab"))
        .args(["run", scenario, "--kernel", kernel])
        .stdout(Stdio::null())
        .status()
        .map_err(|e| lab::Error::kernel("faultlab", "exec", e))?;
    if !status.success() {
        return Err(lab::Error::Lab(format!("faultlab run: {status}")));
    }
    Ok(start.elapsed())
}

/// One guest after the other on one kernel, in virtual time.
struct Lane {
    kernel: KernelImage,
    runtime: Runtime,
}

impl Lane {
    fn new(kernel: KernelImage) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| lab::Error::kernel("bench", "start the runtime", e))?;
        Ok(Self { kernel, runtime })
    }

    /// From nothing to a guest that has ended.
    fn floor(&self, archive: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.guest(archive, &mut |_| Ok(()))?;
        Ok(start.elapsed())
    }

    /// From nothing to the first words of the lab's init.
    fn boot(&self) -> Result<Duration> {
        let start = Instant::now();
        let mut took = Duration::ZERO;
        self.visit(0, &mut |event| {
            if matches!(event, GuestEvent::Booted) {
                took = start.elapsed();
            }
        })?;
        Ok(took)
    }

    /// What the second of two scenarios adds: the way between two outcomes.
    fn second_scenario(&self) -> Result<Duration> {
        let mut outcomes = vec![];
        self.visit(2, &mut |event| {
            if matches!(event, GuestEvent::Outcome(_)) {
                outcomes.push(Instant::now());
            }
        })?;
        Ok(outcomes[1] - outcomes[0])
    }

    fn visit(&self, tasks: usize, on_event: &mut dyn FnMut(GuestEvent<'_>)) -> Result<()> {
        let vm = Vm::new(self.kernel.clone(), scenario::Clock::Virtual, 1)?;
        let task = Job::Run {
            scenario: SCENARIO.to_owned(),
            only: vec![],
            set: std::collections::BTreeMap::new(),
            without_cause: false,
            capturing: Some(lab::stage::CaptureOptions::default()),
        };
        let visit = self.runtime.block_on(vm.run(&scenarios::CATALOGUE, vec![task; tasks], on_event))?;
        visit.failure.map_or(Ok(()), Err)
    }

    /// How long five virtual days take in a guest that sleeps through them.
    fn idle(&self) -> Result<Duration> {
        let mut initramfs = Initramfs::new();
        initramfs.program("/init", &Executable::running()?)?;
        initramfs.file(SLEEPER, 0o444, vec![]);
        let mut frames = vec![];
        let note = &mut |_: &Frame| {
            frames.push(Instant::now());
            Ok(())
        };
        self.guest(&initramfs.build()?, note)?;
        Ok(frames[1] - frames[0])
    }

    fn guest(&self, archive: &[u8], on_frame: &mut OnFrame<'_>) -> Result<()> {
        let mut qemu = Qemu::find()?;
        qemu.clock = GuestClock::Virtual { seed: 1 };
        let kernel = self.kernel.read_image()?;
        let guest = Guest { kernel: &kernel, initramfs: archive, append: "", serial: None, tasks: 1 };
        let end = self.runtime.block_on(qemu.run(&guest, on_frame))?;
        match end.how {
            ExitReason::PoweredOff => Ok(()),
            _ => Err(lab::Error::Lab(end.failure().unwrap_or_default())),
        }
    }
}

/// A file system whose init is a static busybox that does one thing more; none
/// where there is none.
fn busybox(then: &str) -> Result<Option<Vec<u8>>> {
    let Ok(bytes) = fs::read(BUSYBOX) else { return Ok(None) };
    // elf(5): a program that names no interpreter is a static one.
    let is_static =
        !bytes[..bytes.len().min(4096)].windows(10).any(|w| w == b"ld-linux-x" || w == b"/lib/ld-mu");
    if !is_static {
        return Ok(None);
    }
    let mut initramfs = Initramfs::new();
    initramfs.file(BUSYBOX, 0o755, bytes);
    let script = format!("#!{BUSYBOX} sh\n{BUSYBOX} {then}\n");
    initramfs.file("/init", 0o755, script.into_bytes());
    initramfs.build().map(Some)
}

/// The init of a guest that says when it falls asleep and when it wakes.
fn sleeper() -> ExitCode {
    let sleep = || -> Result<()> {
        mounts::mount_file_systems()?;
        console::leave_console()?;
        housekeeping::quiet()?;
        line::send(&Frame::new(REPORT, "asleep"))?;
        std::thread::sleep(FIVE_DAYS);
        line::send(&Frame::new(REPORT, "awake"))
    };
    let slept = sleep();
    if let Err(error) = slept {
        eprintln!("{error}");
    }
    match housekeeping::power_off() {
        Ok(never) => match never {},
        // The kernel panics when init ends, and QEMU ends with it.
        Err(_) => ExitCode::FAILURE,
    }
}
