//! The kernels of the user's store in a real guest: this very executable boots as
//! the guest's init.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use faultlab_testkit::require_all;
use lab::kernels::load_order::WANTED;
use lab::kernels::{KernelImage, Store};
use lab::machine::protocol::{MODULE_LIST, MODULES};
use lab::machine::vm::elf::Executable;
use lab::machine::vm::initramfs::Initramfs;
use libtest_mimic::{Arguments, Failed, Trial};

/// A boot takes 2 to 4 s on an idle machine.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);

fn main() {
    if process::id() == 1 {
        guest();
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![];
    // The user's kernels; without any, one trial says so.
    let entries = Store::open().and_then(|store| store.list()).unwrap_or_default();
    if entries.is_empty() {
        trials.push(
            Trial::test("boot (no kernel in the store)", || Err("no kernel in the store".into()))
                .with_ignored_flag(!require_all()),
        );
    }
    for entry in entries {
        trials.push(Trial::test(format!("boot {}", entry.id), move || {
            let kernel = Store::open().and_then(|store| store.get(&entry.id)).map_err(|e| e.to_string())?;
            boot(&kernel)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Boots the kernel with this executable as init; see [`guest`].
fn boot(kernel: &KernelImage) -> Result<(), Failed> {
    let order = kernel.modules().and_then(|modules| modules.load_order(WANTED)).map_err(|e| e.to_string())?;
    let mut fs = Initramfs::new();
    let init = Executable::running().and_then(|init| fs.program("/init", &init));
    init.map_err(|e| e.to_string())?;
    fs.modules(&order);
    let archive = fs.build().map_err(|e| e.to_string())?;
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    fs::write(file.path(), archive).map_err(|e| e.to_string())?;
    let log = qemu(&kernel.image, file.path())?;
    let said: Vec<_> =
        log.lines().filter_map(|line| line.trim_end().split_once("guest: ")).map(|(_, t)| t).collect();
    let mut expected: Vec<_> = order.modules.iter().map(|module| format!("loaded {}", module.name)).collect();
    expected.push(format!("running {}", kernel.release));
    if said == expected { Ok(()) } else { Err(format!("{said:#?}\ninstead of {expected:#?}\n{log}").into()) }
}

/// The output of the guest's first serial port.
fn qemu(image: &Path, initrd: &Path) -> Result<String, Failed> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "microvm,x-option-roms=off,rtc=on,pit=on,pic=on", "-accel", "tcg,thread=single"])
        .args([
            "-icount",
            "shift=1,sleep=off,align=off",
            "-cpu",
            "max,-rdrand,-rdseed",
            "-smp",
            "1",
            "-m",
            "512",
        ])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-nographic", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 reboot=t panic=-1 nokaslr tsc=reliable nowatchdog loglevel=4"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
    let mut stdout = qemu.stdout.take().ok_or("qemu has no stdout")?;
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut log = Vec::new();
        let read = stdout.read_to_end(&mut log);
        let _ = done.send(read.map(|_| String::from_utf8_lossy(&log).into_owned()));
    });
    let log = ended.recv_timeout(BOOT_DEADLINE);
    let _ = qemu.kill();
    let _ = qemu.wait();
    let log = log.map_err(|_| format!("the guest did not power off in {BOOT_DEADLINE:?}"))?;
    log.map_err(|e| e.to_string().into())
}

/// Runs as a guest's init: loads the modules, reports it, and reboots, which
/// ends QEMU.
fn guest() -> ! {
    let order = fs::read_to_string(MODULE_LIST).unwrap_or_default();
    for name in order.lines() {
        let module = name.trim_end_matches(".ko").split_once('-').map_or(name, |(_, module)| module);
        match load(&format!("{MODULES}/{name}")) {
            Ok(()) => println!("guest: loaded {module}"),
            Err(e) => println!("guest: {module}: {e}"),
        }
    }
    let release = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    println!("guest: running {}", release.unwrap_or_default());
    #[allow(unsafe_code, reason = "init ends the machine")]
    // SAFETY: reboot(2) with a command that takes no argument.
    let answer = unsafe { nix::libc::reboot(nix::libc::RB_AUTOBOOT) };
    panic!("the guest does not reboot: {answer}");
}

fn load(path: &str) -> std::io::Result<()> {
    let module = File::open(path)?;
    let parameters = CString::default();
    #[allow(unsafe_code, reason = "libc wraps no finit_module")]
    // SAFETY: the descriptor is open, the parameters are a C string; the kernel keeps neither.
    let answer = unsafe {
        nix::libc::syscall(nix::libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr(), 0)
    };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
