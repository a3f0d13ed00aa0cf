//! What a guest's init sets up before the first job, and the power-off.
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
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, tcgetattr, tcsetattr};

use faultlab_base::error::{Error, Result};

/// The name of a guest's init in error messages.
const INIT: &str = "init";

/// A file system that the kernel provides.
struct Mount {
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    /// Whether a failure is ignored: not every kernel has it.
    optional: bool,
}

/// The mounts for a shell or a command: pseudo-terminals, shared memory, control
/// groups.
const MORE_MOUNTS: [Mount; 3] = [
    Mount { source: "devpts", target: "/dev/pts", kind: "devpts", optional: true },
    Mount { source: "tmpfs", target: "/dev/shm", kind: "tmpfs", optional: true },
    Mount { source: "cgroup2", target: "/sys/fs/cgroup", kind: "cgroup2", optional: true },
];

/// Documentation/admin-guide/devices.txt: "Compulsory links".
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

const MOUNTS: [Mount; 5] = [
    Mount { source: "proc", target: "/proc", kind: "proc", optional: false },
    Mount { source: "sysfs", target: "/sys", kind: "sysfs", optional: false },
    Mount { source: "devtmpfs", target: "/dev", kind: "devtmpfs", optional: false },
    Mount { source: "debugfs", target: "/sys/kernel/debug", kind: "debugfs", optional: true },
    // Since 4.1; before, it is a directory of debugfs.
    Mount { source: "tracefs", target: "/sys/kernel/tracing", kind: "tracefs", optional: true },
];

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

/// Fails unless this process is a guest's init: these changes must never be made on the
/// host.
pub(super) fn only_as_init() -> Result<()> {
    if std::process::id() == 1 { Ok(()) } else { Err(Error::Lab("this process is not init".to_owned())) }
}

/// The size of conntrack's hash table, for scenarios. With 256 MiB of memory the default
/// is 2048 buckets, which gc_worker walks every 60 s. The maximum number of entries
/// (nf_conntrack_max) is not changed.
const FEW_BUCKETS: Knob = Knob { path: "/sys/module/nf_conntrack/parameters/hashsize", value: "512" };

/// Mounts /proc, /sys, /dev, debugfs and tracefs.
///
/// # Errors
/// If the kernel lacks a required one.
pub fn mount_file_systems() -> Result<()> {
    mount_all(&MOUNTS)
}

/// Mounts a tmpfs on /tmp. Not for a guest with files of the machine, which may be
/// below /tmp.
///
/// # Errors
/// If the kernel lacks tmpfs.
pub fn mount_tmp() -> Result<()> {
    mount_all(&[Mount { source: "tmpfs", target: "/tmp", kind: "tmpfs", optional: false }])
}

/// Adds the mounts and links in /dev that programs expect.
///
/// # Errors
/// If a link cannot be made.
pub fn complete_dev() -> Result<()> {
    mount_all(&MORE_MOUNTS)?;
    for (link, target) in LINKS {
        match std::os::unix::fs::symlink(target, link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::kernel(INIT, format!("link {link}"), e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn mount_all(mounts: &[Mount]) -> Result<()> {
    only_as_init()?;
    for Mount { source, target, kind, optional } in mounts {
        let made = fs::create_dir_all(target);
        let mounted = made
            .and_then(|()| Ok(mount(Some(*source), *target, Some(*kind), MsFlags::empty(), None::<&str>)?));
        match mounted {
            Ok(()) => {}
            // CONFIG_DEVTMPFS_MOUNT: the kernel has mounted it already.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(_) if *optional => {}
            Err(e) => return Err(Error::kernel(INIT, format!("mount {kind} on {target}"), e)),
        }
    }
    Ok(())
}

/// Redirects standard output and error to the kernel log, and closes the console:
/// an open terminal is polled several times a second.
///
/// # Errors
/// If /dev is not mounted.
pub fn leave_console() -> Result<()> {
    only_as_init()?;
    let open = |path: &str, write: bool| {
        File::options()
            .read(!write)
            .write(write)
            .open(path)
            .map_err(|e| Error::kernel(INIT, format!("open {path}"), e))
    };
    let (null, log) = (open("/dev/null", false)?, open("/dev/kmsg", true)?);
    nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&log))
        .and_then(|()| nix::unistd::dup2_stderr(&log))
        .map_err(|e| Error::kernel(INIT, "dup2", e))
}

/// Makes the console the controlling terminal of this process, for a shell, with the
/// width of the user's terminal. The kernel prints only errors and worse there.
///
/// # Errors
/// If the kernel has no such port.
pub fn take_console(columns: usize) -> Result<OwnedFd> {
    const CONSOLE: &str = "/dev/ttyS0";
    only_as_init()?;
    let failed = |tried: &'static str| move |e| Error::kernel(INIT, format!("{tried} {CONSOLE}"), e);
    // A session leader acquires the first terminal that it opens.
    nix::unistd::setsid().map_err(|e| Error::kernel(INIT, "setsid", e))?;
    let console = File::options().read(true).write(true).open(CONSOLE).map_err(failed("open"))?;
    let ws_col = u16::try_from(columns).unwrap_or(u16::MAX);
    let size = libc::winsize { ws_row: 24, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and TIOCSWINSZ reads a struct winsize.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result != 0 {
        return Err(failed("TIOCSWINSZ of")(io::Error::last_os_error()));
    }
    // Levels below 4 (KERN_WARNING): errors and worse.
    set_console_level("4")?;
    Ok(console.into())
}

/// Makes the console an input without echo and signals. Ctrl-D at the start of a line
/// still ends the input.
///
/// # Errors
/// If it is not a terminal.
pub fn read_plainly(console: &OwnedFd) -> Result<()> {
    let failed = |tried: &'static str| move |e: nix::Error| Error::kernel(INIT, tried, e);
    let mut modes = tcgetattr(console).map_err(failed("tcgetattr"))?;
    modes.local_flags &= !(LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
    modes.input_flags &= !(InputFlags::ICRNL | InputFlags::IXON);
    tcsetattr(console, SetArg::TCSANOW, &modes).map_err(failed("tcsetattr"))
}

/// Stops the kernel's messages on the console after the shell has ended.
///
/// # Errors
/// If /proc is not mounted.
pub fn silence_console() -> Result<()> {
    only_as_init()?;
    set_console_level("0")
}

/// Documentation/admin-guide/sysctl/kernel.rst: printk, console_loglevel.
fn set_console_level(level: &str) -> Result<()> {
    fs::write("/proc/sys/kernel/printk", level).map_err(|e| Error::kernel(INIT, "write kernel.printk", e))
}

/// Loads modules in this order. A module that is already loaded is not an error.
///
/// A module's signature is removed first: verifying all of them takes half of a boot's
/// time under emulation. If the kernel requires signatures (CONFIG_MODULE_SIG_FORCE),
/// the module is loaded with its signature.
///
/// # Errors
/// The module that failed, with the kernel's errno.
pub fn load_modules<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<()> {
    only_as_init()?;
    for path in files {
        let path = path.as_ref();
        // The archive numbers them in load order.
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = file.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches('-');
        let failed = |e| Error::kernel(INIT, format!("load the module {name}"), e);
        let signature = cut_signature(path).map_err(failed)?;
        let loaded = match (load_module(path), signature) {
            (Err(e), Some(signature)) if e.raw_os_error() == Some(libc::EKEYREJECTED) => {
                File::options()
                    .append(true)
                    .open(path)
                    .and_then(|mut file| file.write_all(&signature))
                    .map_err(failed)?;
                load_module(path)
            }
            (loaded, _) => loaded,
        };
        match loaded {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(())
}

fn load_module(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: finit_module(2) reads the descriptor, which `file` keeps open,
    // and a C string; both outlive the call.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cuts the signature off a module's file and returns it; `None` if it has none.
fn cut_signature(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut tail = [0; TRAILER];
    let Some(at) = length.checked_sub(TRAILER as u64) else { return Ok(None) };
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut tail)?;
    let Some(start) = signature_length(&tail).and_then(|signature| length.checked_sub(signature)) else {
        return Ok(None);
    };
    let mut signature = vec![];
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut signature)?;
    file.set_len(start)?;
    Ok(Some(signature))
}

/// include/linux/module_signature.h: struct module_signature, then
/// MODULE_SIG_STRING.
const TRAILER: usize = 12 + SIGNED.len();
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The length of the signature at a module's end, from the last bytes of the file.
fn signature_length(tail: &[u8; TRAILER]) -> Option<u64> {
    let (header, mark) = tail.split_at(12);
    // __be32 sig_len is the structure's last field.
    let length = u32::from_be_bytes(header[8..].try_into().expect("four bytes"));
    (mark == SIGNED).then_some(u64::from(length) + TRAILER as u64)
}

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
        .map_err(|e| Error::kernel("init", "raise the limit of open files", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_seeds_are_unlike() {
        // The first outputs of splitmix64 with state 0.
        assert_eq!(splitmix(0)[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let unlike = splitmix(1).iter().zip(splitmix(2)).all(|(a, b)| (a ^ b).count_ones() > 10);
        assert!(unlike);
    }

    #[test]
    fn a_signature_is_cut_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("veth.ko");
        // struct module_signature: PKCS7, no key id, 5 bytes of signature.
        let signature = [b"12345".as_slice(), &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5], SIGNED].concat();
        fs::write(&path, [b"module".as_slice(), &signature].concat()).unwrap();
        assert_eq!(cut_signature(&path).unwrap(), Some(signature.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"module");
        assert_eq!(cut_signature(&path).unwrap(), None);
        // A signature that claims to be longer than the file is not one.
        fs::write(&path, &signature[4..]).unwrap();
        assert_eq!(cut_signature(&path).unwrap(), None);
    }

    #[test]
    fn a_process_that_is_not_init_changes_nothing() {
        assert!(mount_file_systems().is_err());
        assert!(leave_console().is_err());
        assert!(load_modules(["/nowhere/nf_conntrack.ko"]).is_err());
        assert!(quiet().is_err());
        assert!(seed_randomness(1).is_err());
        assert!(power_off().is_err());
    }
}
