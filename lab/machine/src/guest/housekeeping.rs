//! Settings of a guest, made before its first job, and its power-off.
//!
//! In virtual time every wake-up of an idle guest costs some 80 us of the host's
//! CPU time: 35 s for one wake-up per second over five days. The wake-ups stopped
//! here, and on the kernel command line (see `vm::command_line`), were found with the
//! events timer:timer_expire_entry, timer:hrtimer_expire_entry and
//! workqueue:workqueue_execute_start on 5.10, 6.1, 6.12, 6.18 and 7.2, and by
//! counting the instructions that QEMU executes.
//!
//! What remains in five days with a scenario's namespaces on 6.12: 70,000
//! interrupts, two or three for each of the 25,000 times that a timer had work to
//! do.
//! - crng_reseed and conntrack's gc_worker, each every 60 s;
//! - the local APIC, which cannot sleep longer than 2^31 * 16 ns = 34.4 s;
//! - after work, the first idle sleep goes on with the tick (seen on 6.12 and
//!   7.2; cpuidle.off=1 does not change it).
//!
//! neigh_periodic_work (every 15 s) and check_lifetime (every 120 s) are
//! deferrable: they do not wake the guest, but run when it is awake. In 7.2 there
//! is one check_lifetime per namespace: it ran 106,000 times there, 3,700 times on
//! 6.12.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, setrlimit};

use super::{INIT, only_as_init};
use faultlab_base::error::{Error, Result};

/// A kernel setting that stops periodic wake-ups, or makes them rare.
struct Knob {
    path: &'static str,
    value: &'static str,
}

const KNOBS: [Knob; 9] = [
    // khungtaskd, every 120 s; all kernels. It mistakes virtual days for a hang.
    Knob { path: "/proc/sys/kernel/hung_task_timeout_secs", value: "0" },
    // vmstat_update and vmstat_shepherd, every second; all kernels. In seconds,
    // multiplied by HZ in an int: 2,000,000 * 1000 still fits.
    Knob { path: "/proc/sys/vm/stat_interval", value: "2000000" },
    // wb_workfn, every 5 s where anything was ever dirty; all kernels.
    Knob { path: "/proc/sys/vm/dirty_writeback_centisecs", value: "0" },
    // kcompactd0, every 500 ms; from 5.9, if the command line did not keep the
    // thread from starting.
    Knob { path: "/proc/sys/vm/compaction_proactiveness", value: "0" },
    // dl_task_timer and inactive_task_timer, up to once a second while a thread
    // runs; from 6.12. No task here has a real-time class.
    Knob { path: "/sys/kernel/debug/sched/fair_server/cpu0/runtime", value: "0" },
    // The same for sched_ext's tasks; from 6.19.
    Knob { path: "/sys/kernel/debug/sched/ext_server/cpu0/runtime", value: "0" },
    // neigh_managed_work, every 5 s while the guest is awake; from 5.16. It probes
    // neighbours that a user declared managed, of which there are none. In
    // milliseconds, multiplied by HZ in an int.
    Knob { path: "/proc/sys/net/ipv4/neigh/default/interval_probe_time_ms", value: "2000000" },
    Knob { path: "/proc/sys/net/ipv6/neigh/default/interval_probe_time_ms", value: "2000000" },
    // mce_timer_fn, every 300 s; all kernels with CONFIG_X86_MCE.
    Knob { path: "/sys/devices/system/machinecheck/machinecheck0/check_interval", value: "0" },
];

/// The size of conntrack's hash table, for scenarios. With 256 MiB of memory the default
/// is 2048 buckets, which gc_worker walks every 60 s. The maximum number of entries
/// (nf_conntrack_max) is not changed.
const FEW_BUCKETS: Knob = Knob { path: "/sys/module/nf_conntrack/parameters/hashsize", value: "512" };

/// Stops the periodic wake-ups of an idle guest.
///
/// # Errors
/// A knob that exists and rejects its value.
pub fn quiet() -> Result<()> {
    only_as_init()?;
    stop_8254()?;
    turn(&KNOBS)
}

/// Reduces conntrack's hash table to 512 buckets.
///
/// # Errors
/// If the knob exists and rejects its value.
pub fn small_conntrack_table() -> Result<()> {
    only_as_init()?;
    turn(&[FEW_BUCKETS])
}

fn turn(knobs: &[Knob]) -> Result<()> {
    for Knob { path, value } in knobs {
        match fs::write(path, value) {
            Ok(()) => {}
            // This kernel does not have this setting.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::kernel(INIT, format!("write {value} to {path}"), e)),
        }
    }
    Ok(())
}

/// Stops the 8254 timer, which the firmware starts. Only a kernel that calibrates with
/// it stops it; otherwise QEMU wakes up for it 18 times a second.
fn stop_8254() -> Result<()> {
    /// Intel 8254 data sheet: the control word register, and counter 0.
    const CONTROL: u16 = 0x43;
    const COUNTER: u16 = 0x40;
    // SAFETY: ioperm(2) takes no pointers. It lets this process alone reach
    // the 8254's four ports.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::ioperm(COUNTER.into(), 4, 1) };
    if result != 0 {
        return Err(Error::kernel(INIT, "ioperm of the 8254", io::Error::last_os_error()));
    }
    // Counter 0, low byte then high byte, mode 0 ("interrupt on terminal count"):
    // it counts once, to 65536, and then stops.
    for (port, byte) in [(CONTROL, 0x30u8), (COUNTER, 0), (COUNTER, 0)] {
        // SAFETY: ioperm above allowed the port. The instruction touches no
        // memory, and nothing in the kernel uses the timer any more.
        #[allow(unsafe_code, reason = "I/O ports are reached by an instruction only")]
        unsafe {
            core::arch::asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
        }
    }
    Ok(())
}

/// Seeds the kernel's random number generator and credits the entropy.
///
/// Otherwise getrandom(2) blocks until the kernel has gathered entropy, and on 6.1
/// fill_ptr_key_workfn runs every 2 s until then.
///
/// # Errors
/// If the process lacks CAP_SYS_ADMIN.
pub fn seed_randomness(seed: u64) -> Result<()> {
    /// include/uapi/linux/random.h: struct rand_pool_info.
    #[repr(C)]
    struct PoolInfo {
        entropy_count: libc::c_int,
        buf_size: libc::c_int,
        buf: [u64; 4],
    }
    /// include/uapi/linux/random.h: _IOW('R', 0x03, int [2]).
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    only_as_init()?;
    // 256 bits in 32 bytes: POOL_READY_BITS.
    let info = PoolInfo { entropy_count: 256, buf_size: 32, buf: splitmix(seed) };
    let failed = |e| Error::kernel(INIT, "RNDADDENTROPY on /dev/urandom", e);
    let file = File::options().write(true).open("/dev/urandom").map_err(failed)?;
    // SAFETY: the descriptor is open and `info` is the structure that the
    // request reads: two ints and `buf_size` bytes.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if result == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) }
}

/// Derives four words from one. Steele, Lea, Flood: "Fast Splittable Pseudorandom
/// Number Generators", 2014; neighbouring seeds give unrelated words.
fn splitmix(seed: u64) -> [u64; 4] {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Ends the guest. With `-no-reboot` QEMU exits at the reset, on every board.
///
/// # Errors
/// If the process is not init.
pub fn power_off() -> Result<std::convert::Infallible> {
    only_as_init()?;
    // SAFETY: reboot(2) takes no pointers. Only the init of a guest gets here,
    // and what it reported has left the serial port.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    unsafe {
        libc::reboot(libc::LINUX_REBOOT_CMD_RESTART)
    };
    Err(Error::kernel(INIT, "reboot", io::Error::last_os_error()))
}

/// fs/file.c: sysctl_nr_open, the most that even root may set.
const OPEN_FILES: u64 = 1 << 20;

/// Raises RLIMIT_NOFILE to the maximum: a flow takes two sockets, and the limit of init
/// is 1024.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn raise_open_files() -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .map_err(|e| Error::kernel(INIT, "raise the limit of open files", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{console, modules, mounts};

    #[test]
    fn neighbouring_seeds_are_unlike() {
        // The first outputs of splitmix64 with state 0.
        assert_eq!(splitmix(0)[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let unlike = splitmix(1).iter().zip(splitmix(2)).all(|(a, b)| (a ^ b).count_ones() > 10);
        assert!(unlike);
    }

    #[test]
    fn a_process_that_is_not_init_changes_nothing() {
        assert!(mounts::mount_file_systems().is_err());
        assert!(console::leave_console().is_err());
        assert!(modules::load_modules(["/nowhere/nf_conntrack.ko"]).is_err());
        assert!(quiet().is_err());
        assert!(seed_randomness(1).is_err());
        assert!(power_off().is_err());
    }
}
