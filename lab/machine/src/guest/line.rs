//! The second serial port, seen from the guest.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

use crate::protocol::Frame;
use faultlab_base::error::{Error, Result};

/// The port that QEMU gives to results.
const PORT: &str = "/dev/ttyS1";

/// Sends a frame, and returns when the port has taken its last byte.
///
/// The port is opened for one frame only: an open one is polled several times
/// a second by the 8250 driver, which keeps virtual time from jumping.
///
/// # Errors
/// If there is no such port.
pub fn send(frame: &Frame) -> Result<()> {
    let failed = |tried: &'static str| move |e| Error::kernel(PORT, tried, e);
    let errno = |tried: &'static str| move |e: nix::Error| failed(tried)(e.into());
    let mut port = File::options()
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(PORT)
        .map_err(failed("open"))?;
    // A terminal would turn every \n of a frame into \r\n.
    let mut raw = tcgetattr(&port).map_err(errno("tcgetattr"))?;
    cfmakeraw(&mut raw);
    tcsetattr(&port, SetArg::TCSANOW, &raw).map_err(errno("tcsetattr"))?;
    port.write_all(&frame.encode()).map_err(failed("write"))?;
    tcdrain(&port).map_err(errno("tcdrain"))
}
