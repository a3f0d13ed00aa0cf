//! A guest's console, the first serial port.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::termios::{InputFlags, LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::{INIT, only_as_init};
use faultlab_base::error::{Error, Result};

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
