//! The command lines of QEMU and of the guest's kernel.
//!
//! A guest has no network card and no disk. Its kernel prints on the first serial
//! port, init reports on the second. No file is written: QEMU inherits the kernel and
//! the initramfs as memfds, and the ports as pipes or a socket.
//!
//! Reading: QEMU docs/devel/tcg-icount.rst ("TCG Instruction Counting"),
//! docs/system/i386/microvm.rst.

use std::os::fd::RawFd;

use super::qemu::{Accelerator, Board, GuestClock, LaunchMode, Qemu};
use super::serial_console::SerialConsole;
use super::tsc::host_tsc_khz;

/// The rest of `-icount shift=N`.
const ICOUNT: &str = "sleep=off,align=off";

/// More of `-icount`, for one processor: QEMU records no guest with more.
///
/// The recording is discarded. It makes QEMU's main loop and its emulated processor run
/// alternately (replay_mutex_lock in accel/tcg/tcg-accel-ops-icount.c). Otherwise the
/// main loop may see the processor halted before the instructions of its last slice are
/// counted, and advance the clock too far by their time: after days of virtual time one
/// run in five ended some microseconds later.
const RECORDING: &str = ",rr=record,rrfile=/dev/null";

/// With instruction counting, QEMU's time stamp counter counts virtual ns.
const VIRTUAL_TSC_KHZ: u64 = 1_000_000;

/// The processor model under TCG. Models without ARAT, which `max` has, never stop the
/// tick.
///
/// QEMU 7.2 leaves the low half of an operand in EFLAGS after CMPXCHG16B (observed:
/// `EFLAGS: 0f3077c2` beside `RDI: ffff88800f307780`). If a timer interrupts just
/// then, IRET takes bit 8 for TF, and the guest dies of a trap in the middle of
/// `__kmalloc`. A kernel without CX16 does not use the instruction.
///
/// Each repetition of a string instruction counts as one instruction. With ERMS a kernel
/// clears and copies one byte per repetition, without it eight.
const TCG_CPU: &str = "max,-cx16,-erms";

/// Initcalls that a guest's kernel skips at boot. Kernels without such a function
/// ignore its name.
const NOT_CALLED: [&str; 5] = [
    // The self tests of the jitter RNG, which take a second of every boot since
    // 6.x, and of a key derivation function.
    "jent_mod_init",
    "crypto_kdf108_init",
    // kcompactd0: two wake-ups a second on 5.10, regardless of its sysctl.
    "kcompactd_init",
    // Replaces enum names by numbers in the formats of all trace events, for
    // programs that print events: 100 million instructions.
    "trace_eval_init",
    // Looks up the names of all traceable functions: 100 million instructions, from
    // 6.1.
    "ftrace_check_for_weak_functions",
];

impl Qemu {
    /// The kernel command line of a guest. `extra` comes last.
    #[must_use]
    pub fn kernel_command_line(&self, mode: LaunchMode, extra: &str) -> String {
        let mut words = vec![
            "console=ttyS0".to_owned(),
            // A triple fault is the only reset that works on all boards.
            "reboot=t panic=-1".to_owned(),
            // Not needed in a guest, and slow to emulate.
            "nokaslr mitigations=off cryptomgr.notests nowatchdog audit=0 transparent_hugepage=never"
                .to_owned(),
            // Pages are not cleared at allocation, and the only security module is
            // the one for capabilities.
            "init_on_alloc=0 lsm=capability".to_owned(),
            format!("initcall_blacklist={}", NOT_CALLED.join(",")),
            // psi_avgs_work and flush_memcg_stats_dwork: every 2 s.
            "psi=0 cgroup_disable=memory".to_owned(),
            // kdamond.0, from 6.18: every 4 s.
            "damon_stat.enabled=0".to_owned(),
        ];
        match (self.clock, mode.accelerator) {
            (_, Accelerator::Kvm) => {}
            (GuestClock::Virtual { seed }, _) => {
                words.push(format!("tsc=reliable tsc_early_khz={VIRTUAL_TSC_KHZ} no_timer_check"));
                // QEMU's -seed determines RDRAND. A kernel that trusts RDRAND has
                // its random number generator ready at boot, which saves 80 million
                // instructions. start_kernel() adds the command line to the entropy,
                // and with it the seed.
                words.push(format!("random.trust_cpu=on random.trust_bootloader=off faultlab.seed={seed}"));
            }
            (GuestClock::Real, Accelerator::Tcg) => {
                words.push(format!("tsc=reliable tsc_early_khz={} no_timer_check", host_tsc_khz()));
            }
        }
        if !extra.is_empty() {
            words.push(extra.to_owned());
        }
        words.join(" ")
    }

    /// QEMU's arguments.
    #[must_use]
    pub fn arguments(&self, mode: LaunchMode, guest: &Guest<'_>, files: &Files) -> Vec<String> {
        let mut words = Words(Vec::new());
        words.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
        words.option("-display", "none").option("-monitor", "none");
        words.option("-smp", self.processors.to_string()).option("-m", self.memory.to_string());
        words.option(
            "-M",
            match mode.board {
                // The 8254 and the 8259 are for kernels that calibrate with them;
                // init stops the 8254.
                Board::Microvm => "microvm,x-option-roms=off,rtc=on,pit=on,pic=on",
                Board::Pc => "pc,usb=off",
            },
        );
        match (self.clock, mode.accelerator) {
            (_, Accelerator::Kvm) => {
                words.option("-accel", "kvm").option("-cpu", "host");
            }
            (GuestClock::Real, Accelerator::Tcg) => {
                words.option("-accel", "tcg,thread=single").option("-cpu", TCG_CPU);
            }
            (GuestClock::Virtual { seed }, Accelerator::Tcg) => {
                words.option("-accel", "tcg,thread=single");
                words.option("-cpu", format!("{TCG_CPU},-rdseed"));
                let recording = if self.processors == 1 { RECORDING } else { "" };
                words.option("-icount", format!("shift={},{ICOUNT}{recording}", self.shift));
                words.option("-rtc", "base=2026-01-01T00:00:00,clock=vm");
                // QEMU takes 32 bits; the command line carries the whole seed.
                words.option("-seed", (seed & u64::from(u32::MAX)).to_string());
            }
        }
        words.option(
            "-chardev",
            match guest.serial {
                None => format!("file,id=console,path=/dev/fd/{}", files.console),
                Some(_) => format!("socket,id=console,fd={}", files.console),
            },
        );
        words.option("-chardev", format!("file,id=results,path=/dev/fd/{}", files.results));
        words.option("-serial", "chardev:console");
        // microvm has only one serial port by default; this is COM2 on both boards.
        words.option("-device", "isa-serial,chardev=results,iobase=0x2f8,irq=3");
        let kernel = match (mode.board, files.vmlinux) {
            (Board::Microvm, Some(vmlinux)) => vmlinux,
            _ => files.kernel,
        };
        words.option("-kernel", format!("/dev/fd/{kernel}"));
        words.option("-initrd", format!("/dev/fd/{}", files.initramfs));
        words.option("-append", self.kernel_command_line(mode, guest.append));
        words.0
    }
}

/// The parts of a guest.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// A bzImage. If possible it is unpacked on the host, which saves a third of the
    /// boot time under emulation.
    pub kernel: &'a [u8],
    /// A cpio archive.
    pub initramfs: &'a [u8],
    /// Text to append to the kernel command line.
    pub append: &'a str,
    /// The console on its first serial port; `None` if that is output only.
    pub serial: Option<&'a SerialConsole>,
    /// The number of its tasks, each of which has its own time limit.
    pub tasks: u32,
}

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// The pipe for the output of ttyS0; a socket if it also has input.
    pub console: RawFd,
    /// The pipe for the output of ttyS1.
    pub results: RawFd,
    /// The bzImage.
    pub kernel: RawFd,
    /// The unpacked kernel; `None` if it could not be unpacked.
    pub vmlinux: Option<RawFd>,
    /// The initramfs.
    pub initramfs: RawFd,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(clock: GuestClock, mode: LaunchMode) -> String {
        let guest = Guest { kernel: b"", initramfs: b"", append: "faultlab.more", serial: None, tasks: 1 };
        let files = Files { console: 7, results: 8, kernel: 5, vmlinux: Some(6), initramfs: 9 };
        Qemu::unfound(clock).arguments(mode, &guest, &files).join(" ")
    }

    const TCG: LaunchMode = LaunchMode { board: Board::Microvm, accelerator: Accelerator::Tcg };
    const KVM: LaunchMode = LaunchMode { board: Board::Microvm, accelerator: Accelerator::Kvm };

    #[test]
    fn virtual_time_counts_instructions_and_takes_randomness_from_the_seed() {
        assert_eq!(
            arguments(GuestClock::Virtual { seed: 7 }, TCG),
            "-nodefaults -no-user-config -no-reboot -display none -monitor none -smp 1 -m 256 \
             -M microvm,x-option-roms=off,rtc=on,pit=on,pic=on -accel tcg,thread=single \
             -cpu max,-cx16,-erms,-rdseed -icount shift=3,sleep=off,align=off,rr=record,rrfile=/dev/null \
             -rtc base=2026-01-01T00:00:00,clock=vm -seed 7 \
             -chardev file,id=console,path=/dev/fd/7 -chardev file,id=results,path=/dev/fd/8 \
             -serial chardev:console -device isa-serial,chardev=results,iobase=0x2f8,irq=3 \
             -kernel /dev/fd/6 -initrd /dev/fd/9 -append console=ttyS0 reboot=t panic=-1 nokaslr \
             mitigations=off cryptomgr.notests nowatchdog audit=0 transparent_hugepage=never \
             init_on_alloc=0 lsm=capability initcall_blacklist=jent_mod_init,\
             crypto_kdf108_init,kcompactd_init,trace_eval_init,ftrace_check_for_weak_functions psi=0 \
             cgroup_disable=memory damon_stat.enabled=0 tsc=reliable tsc_early_khz=1000000 no_timer_check \
             random.trust_cpu=on random.trust_bootloader=off faultlab.seed=7 faultlab.more"
        );
    }

    #[test]
    fn several_processors_are_not_recorded() {
        let guest = Guest { kernel: b"", initramfs: b"", append: "", serial: None, tasks: 1 };
        let files = Files { console: 7, results: 8, kernel: 5, vmlinux: Some(6), initramfs: 9 };
        let mut qemu = Qemu::unfound(GuestClock::Virtual { seed: 7 });
        (qemu.processors, qemu.shift) = (2, 1);
        let line = qemu.arguments(TCG, &guest, &files).join(" ");
        assert!(
            line.contains("-smp 2 ") && line.contains("-icount shift=1,sleep=off,align=off -rtc"),
            "{line}"
        );
    }

    #[test]
    fn the_second_way_starts_from_the_image_as_it_is() {
        let clock = GuestClock::Virtual { seed: 7 };
        let pc = LaunchMode { board: Board::Pc, accelerator: Accelerator::Tcg };
        assert_eq!(Qemu::unfound(clock).modes(true), [TCG, pc]);
        assert!(arguments(clock, pc).contains("-kernel /dev/fd/5 "));
    }

    #[test]
    fn real_time_counts_no_instructions() {
        for mode in [TCG, KVM] {
            let line = arguments(GuestClock::Real, mode);
            assert!(!line.contains("icount") && !line.contains("seed"), "{line}");
        }
        assert!(arguments(GuestClock::Real, KVM).contains("-accel kvm -cpu host"));
        assert!(!arguments(GuestClock::Real, KVM).contains("tsc"));
    }

    #[test]
    fn a_guest_has_no_network_and_no_disk() {
        for clock in [GuestClock::Real, GuestClock::Virtual { seed: 0 }] {
            for mode in Qemu::unfound(clock).modes(true) {
                let line = arguments(clock, mode);
                assert!(line.starts_with("-nodefaults -no-user-config"), "{line}");
                assert!(
                    !line.contains("-net")
                        && !line.contains("-drive")
                        && line.matches("-device").count() == 1
                );
            }
        }
    }
}
