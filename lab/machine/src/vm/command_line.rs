//! The command lines of a guest: QEMU's and the kernel's.
//!
//! A guest has no network, no disk and no root file system. Its kernel prints
//! on the first serial port, init reports on the second. Nothing is written
//! to a file: the initramfs is handed over in memory, the ports are pipes.
//!
//! Reading: QEMU docs/devel/tcg-icount.rst ("TCG Instruction Counting"),
//! docs/system/i386/microvm.rst.

use std::os::fd::RawFd;

use super::qemu::{Accelerator, Board, GuestClock, LaunchMode, Qemu};
use super::serial_console::SerialConsole;
use super::tsc::host_tsc_khz;

/// `-icount shift=3`: an instruction takes 2^3 ns, 125 million a second. One
/// instruction in 2 ns (shift=1) makes the kernel spin four times as often
/// through the 100 ms in which it calibrates its local APIC.
///
/// The recording, which nobody keeps, makes QEMU's main loop and its processor
/// take turns (replay_mutex_lock in accel/tcg/tcg-accel-ops-icount.c). Without
/// it the main loop may find the processor halted before the instructions of
/// its last slice are counted, and moves the clock on by so much too far: after
/// days of virtual time, one run in five ended some microseconds later.
const ICOUNT: &str = "shift=3,sleep=off,align=off,rr=record,rrfile=/dev/null";

/// Under instruction counting QEMU's time stamp counter counts virtual ns.
const VIRTUAL_TSC_KHZ: u64 = 1_000_000;

/// With less than `max` (no ARAT) a guest never stops its tick.
///
/// QEMU 7.2 leaves the low half of an operand in EFLAGS after CMPXCHG16B
/// (seen: `EFLAGS: 0f3077c2` beside `RDI: ffff88800f307780`). Where a timer
/// interrupts just then, IRET takes bit 8 for TF, and the guest dies of a
/// trap in the middle of `__kmalloc`. A kernel that is told of no CX16 does
/// without the instruction.
///
/// Every repetition of a string instruction costs as much as an instruction:
/// without ERMS a kernel clears and copies by eight bytes at a time.
const TCG_CPU: &str = "max,-cx16,-erms";

/// What a guest's kernel does not do as it boots. A kernel that has no such
/// function does not mind.
const NOT_CALLED: [&str; 5] = [
    // The self tests of the jitter RNG, a second of every boot since 6.x, and
    // of a key derivation function.
    "jent_mod_init",
    "crypto_kdf108_init",
    // kcompactd0: two wake-ups a second on 5.10, whatever its sysctl says.
    "kcompactd_init",
    // Puts numbers for names into the formats of all trace events, which
    // programs read to print events: 100 million instructions.
    "trace_eval_init",
    // Looks up the name of all that can be traced: 100 million, from 6.1.
    "ftrace_check_for_weak_functions",
];

impl Qemu {
    /// The kernel command line of a guest. `extra` comes last.
    #[must_use]
    pub fn kernel_command_line(&self, mode: LaunchMode, extra: &str) -> String {
        let mut words = vec![
            "console=ttyS0".to_owned(),
            // A triple fault: the one reset that all boards understand.
            "reboot=t panic=-1".to_owned(),
            // Of no use in a guest that lives for seconds, and slow to emulate.
            "nokaslr mitigations=off cryptomgr.notests nowatchdog audit=0 transparent_hugepage=never"
                .to_owned(),
            // No page is cleared twice, and no security module has a say.
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
                // RDRAND comes from QEMU's -seed. A kernel that trusts it has its
                // randomness from the start, and does not hash its entropy for
                // every number that it wants: 80 million instructions.
                // start_kernel() mixes the command line into the first randomness.
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
        words.option("-smp", "1").option("-m", self.memory.to_string());
        words.option(
            "-M",
            match mode.board {
                // The 8254 and the 8259 are there for kernels that calibrate
                // with them; init stops the one that ticks.
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
                words.option("-icount", ICOUNT);
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
        // microvm makes one serial port only by itself; this is COM2 on both boards.
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

/// What a guest is made of.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// A bzImage. It is unpacked here where it can be, which spares the guest
    /// that work under emulation: a third of its boot.
    pub kernel: &'a [u8],
    /// A cpio archive.
    pub initramfs: &'a [u8],
    /// What the kernel command line ends with.
    pub append: &'a str,
    /// Who sits at its first serial port, if anybody does.
    pub serial: Option<&'a SerialConsole>,
    /// How many tasks it has, each of which may take its time.
    pub tasks: u32,
}

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// Where ttyS0 is written to; a socket, where a person types there.
    pub console: RawFd,
    /// Where ttyS1 is written to.
    pub results: RawFd,
    /// Where the bzImage is read from.
    pub kernel: RawFd,
    /// Where the unpacked kernel is read from; none where it could not be
    /// unpacked.
    pub vmlinux: Option<RawFd>,
    /// Where the initramfs is read from.
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
