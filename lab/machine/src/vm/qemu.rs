//! Finds QEMU, and lists the modes in which it can start a guest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::budget::Measure;
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// The emulator's name on PATH.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// How to install it.
const INSTALL: &str =
    "install the package qemu-system-x86 (Debian, Ubuntu, Fedora) or qemu-system-x86_64 (Alpine)";

/// The first version whose microvm has ACPI, and which has all flags used here.
const VERSION_MIN: (u32, u32) = (5, 2);

/// The memory of a guest that only runs scenarios, MiB.
const MEMORY: u32 = 256;

/// An instruction takes 2^3 ns: 125 million per second. With a shift of 1 (2 ns) the
/// kernel executes four times as many instructions in the 100 ms in which it calibrates
/// its local APIC.
const SHIFT: u8 = 3;

/// The maximum time between two frames: a guest sends one whenever an arm has ended.
/// Five idle days take 230 s of processor time on 4.9, whose conntrack wakes up for
/// garbage collection at least every 16 HZ / 128 jiffies, as 4.10's does: 3.5 million
/// times in five days. 4.19 wakes up every 120 s, and takes seconds.
const FRAME_BUDGET: Duration = Duration::from_secs(900);

/// The maximum time for a task, whatever the guest reports meanwhile.
const TASK_BUDGET: Duration = Duration::from_secs(1800);

/// How time passes in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestClock {
    /// Time counts instructions, and jumps to the next timer when everything
    /// sleeps. The seed is the guest's only randomness: the same seed gives the
    /// same bytes.
    Virtual {
        /// Determines ports, hash keys and the order of concurrent events.
        seed: u64,
    },
    /// The host's time.
    Real,
}

/// The board that QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// Almost no firmware, no PCI: the fastest to boot.
    Microvm,
    /// QEMU's `pc`, an i440FX of 1996, which every kernel supports.
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
pub struct LaunchMode {
    /// The board.
    pub board: Board,
    /// The processor.
    pub accelerator: Accelerator,
}

impl LaunchMode {
    /// The clock that measures a guest's time in this mode.
    #[must_use]
    pub fn measure(self, clock: GuestClock) -> Measure {
        match (clock, self.accelerator) {
            (GuestClock::Virtual { .. }, Accelerator::Tcg) => Measure::Processor,
            _ => Measure::Wall,
        }
    }
}

impl fmt::Display for LaunchMode {
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

/// An installed QEMU, and the settings of its guests.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    version: (u32, u32),
    /// The guest's memory, MiB.
    pub memory: u32,
    /// The number of its processors.
    pub processors: u32,
    /// In virtual time an instruction takes 2^shift ns.
    pub shift: u8,
    /// How time passes.
    pub clock: GuestClock,
    /// How long a guest may take from one frame to the next: QEMU's processor time
    /// in virtual time, otherwise the host's clock.
    pub frame_budget: Duration,
    /// How long a guest may take until its first frame, measured likewise: a guest
    /// that hangs at boot is started again, in another mode.
    pub boot_budget: Duration,
    /// How long a guest may take for each task, in addition to its boot; likewise.
    pub task_budget: Duration,
}

/// The memory in MiB that a guest needs to unpack an archive of this many bytes. The
/// root file system needs as much again as the archive, and may fill half of the
/// memory. With less, a kernel unpacks only a part.
#[must_use]
pub fn memory_for(archive: usize) -> u32 {
    let archive = u32::try_from(archive >> 20).unwrap_or(u32::MAX).saturating_add(1);
    // 192 MiB + 2.3 times the archive were enough on 5.10 to 7.2.
    let needed = archive.saturating_mul(5) / 2 + 192;
    needed.next_multiple_of(32).max(MEMORY)
}

impl Qemu {
    /// Looks for QEMU on PATH.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none, or it is too old.
    pub fn find() -> Result<Self> {
        let program = programs::named(PROGRAM).next().ok_or_else(|| Error::missing(PROGRAM, INSTALL))?;
        Self::at(program)
    }

    /// Uses this program as QEMU.
    ///
    /// # Errors
    /// [`Error::Missing`] if it is too old.
    pub fn at(program: PathBuf) -> Result<Self> {
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
            return Err(Error::missing(what, INSTALL));
        }
        Ok(Self {
            program,
            version,
            memory: MEMORY,
            processors: 1,
            shift: SHIFT,
            clock: GuestClock::Virtual { seed: 1 },
            frame_budget: FRAME_BUDGET,
            boot_budget: Duration::from_secs(60),
            task_budget: TASK_BUDGET,
        })
    }

    /// Its path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Major and minor version.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The modes to start a guest in, best first; the next one is tried if a guest
    /// did not send a frame.
    ///
    /// Without instruction counting a guest under TCG may be preempted by the host
    /// while it calibrates its clock. One boot in ten fails because of that, so there
    /// are several attempts.
    #[must_use]
    pub fn modes(&self, kvm: bool) -> Vec<LaunchMode> {
        let tcg = |board| LaunchMode { board, accelerator: Accelerator::Tcg };
        let with_kvm = LaunchMode { board: Board::Microvm, accelerator: Accelerator::Kvm };
        match self.clock {
            GuestClock::Virtual { .. } => vec![tcg(Board::Microvm), tcg(Board::Pc)],
            GuestClock::Real => kvm
                .then_some(with_kvm)
                .into_iter()
                .chain([tcg(Board::Microvm), tcg(Board::Microvm), tcg(Board::Pc), tcg(Board::Pc)])
                .collect(),
        }
    }

    /// A QEMU that does not exist.
    #[cfg(test)]
    pub(super) fn unfound(clock: GuestClock) -> Self {
        Self {
            program: PROGRAM.into(),
            version: VERSION_MIN,
            memory: MEMORY,
            processors: 1,
            shift: SHIFT,
            clock,
            frame_budget: Duration::from_secs(1),
            boot_budget: Duration::from_secs(1),
            task_budget: Duration::from_secs(1),
        }
    }
}

/// "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(['.', ' ', '\n', '-', '(']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_never_asks_for_kvm() {
        let modes = Qemu::unfound(GuestClock::Virtual { seed: 0 }).modes(true);
        assert!(modes.iter().all(|mode| mode.accelerator == Accelerator::Tcg));
        assert_eq!(Qemu::unfound(GuestClock::Real).modes(true)[0].accelerator, Accelerator::Kvm);
        assert_eq!(Qemu::unfound(GuestClock::Real).modes(false)[0].accelerator, Accelerator::Tcg);
    }

    #[test]
    fn memory_grows_with_the_archive() {
        assert_eq!([0, 20 << 20, 95 << 20].map(memory_for), [256, 256, 448]);
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
}
