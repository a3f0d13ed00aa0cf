//! Runs scenarios on one kernel: boots a guest, gives it jobs, and reads its
//! reports.

use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Instant;

use super::answers::{self, Answer, Answers};
use super::command_line::Guest;
use super::elf::Executable;
use super::end::GuestEnd;
use super::initramfs::Initramfs;
use super::process::Interrupted;
use super::qemu::{self, Qemu};
use super::serial_console::{self, SerialConsole};
use super::{Console, ExitReason};
use crate::exec::ExecOrder;
use crate::job::{Job, Report};
use crate::orders::Orders;
use crate::protocol::{Frame, ORDERS, STDERR, STDOUT};
use crate::shell::ShellOptions;
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_kernels::KernelImage;
use faultlab_kernels::load_order::WANTED;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::Clock;
use faultlab_net::kernel::version_of;

/// The error for a guest without any output.
const SILENT: &str = "the guest printed and reported nothing: its kernel seems to have no serial console \
                      (CONFIG_SERIAL_8250=y, CONFIG_SERIAL_8250_CONSOLE=y)";

/// A kernel that is ready to boot.
#[derive(Debug)]
pub struct Vm {
    pub(super) qemu: Qemu,
    pub(super) kernel: KernelImage,
    /// Read once, like its modules, so that files that are replaced or removed while
    /// guests run have no effect.
    image: Vec<u8>,
    clock: Clock,
    seed: u64,
    modules: faultlab_kernels::load_order::LoadOrder,
}

/// An event of a running guest.
#[derive(Debug)]
pub enum GuestEvent<'a> {
    /// Its init is running.
    Booted,
    /// An arm of the current scenario has ended.
    Arm(&'a str),
    /// A scenario has ended.
    Outcome(&'a Outcome),
}

/// An event of a guest with a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellEvent {
    /// Its root file system is built, and it boots.
    Boots,
    /// Its init is running, and plays the arm.
    Booted,
    /// The arm was played, and the shell starts.
    Begins,
}

/// The result of a guest.
#[derive(Debug)]
pub struct GuestRun {
    /// The outcomes, in the order of the jobs; not of all jobs if the guest ended
    /// early.
    pub outcomes: Vec<Outcome>,
    /// Whether its init reached the first job.
    pub booted: bool,
    /// Whether it was ended because the lab was asked to end.
    pub interrupted: bool,
    /// Why it ended early, if it did so by itself.
    pub failure: Option<Error>,
    /// The output of its kernel.
    pub console: Console,
}

impl Vm {
    /// Prepares a kernel: finds QEMU, reads the image, and determines which modules
    /// to load. Later changes of the files have no effect.
    ///
    /// # Errors
    /// [`Error::Missing`] without a sufficiently new QEMU; other errors if the
    /// kernel's image or modules cannot be read.
    pub fn new(kernel: KernelImage, clock: Clock, seed: u64) -> Result<Self> {
        let mut qemu = Qemu::find()?;
        qemu.clock = match clock {
            Clock::Virtual => qemu::GuestClock::Virtual { seed },
            Clock::Real => qemu::GuestClock::Real,
        };
        let image = kernel.read_image()?;
        let modules = kernel.modules()?.load_order(WANTED)?;
        Ok(Self { qemu, kernel, image, clock, seed, modules })
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &KernelImage {
        &self.kernel
    }

    /// Boots the kernel once and runs all jobs on it. Each job must run a scenario
    /// of the catalogue.
    ///
    /// # Errors
    /// If the guest cannot be started at all.
    pub async fn run(
        &self,
        catalogue: &Catalogue,
        jobs: Vec<Job>,
        on_event: &mut dyn FnMut(GuestEvent<'_>),
    ) -> Result<GuestRun> {
        self.run_until(catalogue, jobs, on_event, &mut (pin!(pending()) as Interrupted<'_>)).await
    }

    /// The same, but ends the guest when `interrupted` is ready, and returns the
    /// outcomes that it has reported until then.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(
        &self,
        catalogue: &Catalogue,
        jobs: Vec<Job>,
        on_event: &mut dyn FnMut(GuestEvent<'_>),
        interrupted: &mut Interrupted<'_>,
    ) -> Result<GuestRun> {
        let count = jobs.len();
        let mut answers = Answers::new(catalogue, &jobs, &self.kernel.release, self.clock)?;
        let archive = self.root(jobs)?.build()?;
        let guest = self.guest(&archive, None, count);
        let mut outcomes: Vec<Outcome> = vec![];
        let mut failure = None;
        let mut booted = false;
        let mut begun = Instant::now();
        let mut hear = |frame: &Frame| {
            match answers.take(frame)? {
                Answer::Booted => {
                    begun = Instant::now();
                    booted = true;
                    on_event(GuestEvent::Booted);
                }
                Answer::Arm(arm) => on_event(GuestEvent::Arm(arm)),
                Answer::Outcome(mut outcome) => {
                    outcome.seconds.wall = begun.elapsed().as_secs_f64();
                    begun = Instant::now();
                    on_event(GuestEvent::Outcome(&outcome));
                    outcomes.push(*outcome);
                }
                Answer::GaveUp(error) => failure = Some(error),
            }
            Ok(())
        };
        let end = self.qemu.run_until(&guest, &mut hear, interrupted).await?;
        let interrupted = matches!(end.how, ExitReason::Interrupted);
        if matches!(end.how, ExitReason::Refused(_)) {
            // The last outcome of a guest that sends more after it is not trusted.
            outcomes.truncate(count.saturating_sub(1));
            failure = None;
        }
        if failure.is_none() && outcomes.len() < count && !interrupted {
            failure = Some(ended(&end));
        }
        let failure = failure.map(|error| self.of_kernel(error));
        Ok(GuestRun { outcomes, booted, interrupted, failure, console: end.console })
    }

    /// Boots the kernel, plays an arm there, and connects the user's terminal to a
    /// shell in its network, with these programs and files. Returns the shell's exit
    /// status. What `on_event` prints comes before the shell's output.
    ///
    /// # Errors
    /// [`Error::Missing`] without a static busybox; other errors if a program or a
    /// file cannot be read, the guest cannot be started, or it ends before the shell
    /// does.
    pub async fn shell(
        &self,
        job: Job,
        with: &[PathBuf],
        on_event: &mut dyn FnMut(ShellEvent),
    ) -> Result<u8> {
        let piped = matches!(job, Job::Shell { options: ShellOptions { piped: true, .. }, .. });
        let mut root = self.tools(with, None)?.root;
        self.add_init(&mut root, vec![job], None)?;
        let archive = root.build()?;
        let qemu = self.sized_for(&archive);
        let serial = SerialConsole::new(piped);
        let guest = self.guest(&archive, Some(&serial), 1);
        on_event(ShellEvent::Boots);
        let mut left = None;
        let mut hear = |frame: &Frame| {
            if serial.is_piped()
                && serial.is_attached()
                && left.is_none()
                && [STDOUT, STDERR].contains(&frame.kind)
            {
                serial_console::write(&frame.body, frame.kind == STDERR);
                return Ok(());
            }
            let report = answers::read(frame, answers::SMALL)?;
            match report {
                _ if left.is_some() => {
                    let what = answers::name(&report);
                    return Err(Error::Lab(format!("it reported {what} after the end of its shell")));
                }
                Report::Booted { .. } => on_event(ShellEvent::Booted),
                Report::ShellBegins if !serial.is_attached() => {
                    on_event(ShellEvent::Begins);
                    serial.attach();
                }
                Report::Left(status) if serial.is_attached() => left = Some(Ok(status)),
                Report::Missing { what, advice } => left = Some(Err(answers::missing(&what, &advice))),
                Report::Failed(sentence) | Report::Exhausted(sentence) => {
                    left = Some(Err(answers::failed(&sentence)));
                }
                Report::ArmEnded(_)
                | Report::ShellBegins
                | Report::Left(_)
                | Report::Outcome(_)
                | Report::Abilities(_)
                | Report::MayTake(_)
                | Report::Continued => {
                    let what = answers::name(&report);
                    return Err(Error::Lab(format!("it reported {what}, and was asked for a shell")));
                }
            }
            Ok(())
        };
        let end = qemu.run(&guest, &mut hear).await?;
        left.unwrap_or_else(|| Err(ended(&end))).map_err(|error| self.of_kernel(error))
    }

    /// The root file system of a guest with these jobs.
    fn root(&self, jobs: Vec<Job>) -> Result<Initramfs> {
        let mut initramfs = Initramfs::new();
        initramfs.modules(&self.modules);
        self.add_init(&mut initramfs, jobs, None)?;
        Ok(initramfs)
    }

    /// Adds this program as the guest's init, and its orders.
    pub(super) fn add_init(
        &self,
        initramfs: &mut Initramfs,
        jobs: Vec<Job>,
        exec: Option<ExecOrder>,
    ) -> Result<()> {
        let orders = Orders { jobs, exec, clock: self.clock, seed: self.seed };
        initramfs.program("/init", &Executable::running()?)?;
        let orders = serde_json::to_vec(&orders).expect("orders are plain data");
        initramfs.file(ORDERS, 0o444, orders);
        Ok(())
    }

    /// A guest with this initramfs, and with the kernel parameters that its version
    /// needs.
    pub(super) fn guest<'a>(
        &'a self,
        archive: &'a [u8],
        serial: Option<&'a SerialConsole>,
        tasks: usize,
    ) -> Guest<'a> {
        // Before 5.0 a kernel hangs in the ACPI of a microvm. Before 5.10 a kernel
        // cannot be given the frequency of its TSC. If a busy host disturbs the
        // measurement, it counts loops per tick (calibrate_delay), and hangs because
        // there are no ticks yet. lpj is the count for 1 GHz at HZ=250; emulated
        // devices do not depend on it.
        let append = match (version_of(&self.kernel.release), self.clock) {
            ((5, 10..) | (6.., _), _) | ((5, _), Clock::Virtual) => "",
            ((5, _), Clock::Real) => "lpj=4000000",
            (_, Clock::Virtual) => "acpi=off",
            (_, Clock::Real) => "acpi=off lpj=4000000",
        };
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        Guest { kernel: &self.image, initramfs: archive, append, serial, tasks }
    }

    /// The error, with the kernel's name.
    pub(super) fn of_kernel(&self, error: Error) -> Error {
        match error {
            Error::Missing(missing) => Error::Missing(missing),
            error => Error::Lab(format!("{}: {error}", self.kernel.id)),
        }
    }
}

/// The error for a guest that ended before it was done.
pub(super) fn ended(end: &GuestEnd) -> Error {
    Error::Lab(match end.failure() {
        // init powers off if it cannot open the port.
        None if end.frames == 0 && end.console.is_empty() => SILENT.to_owned(),
        None => format!("the guest ended without an outcome\n{}", end.last_lines()),
        Some(why) => why,
    })
}
