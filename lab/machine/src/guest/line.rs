//! The guest's end of the second serial port.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

use crate::protocol::Frame;
use faultlab_base::error::{Error, Result};

/// The second serial port, from which the host reads frames.
const PORT: &str = "/dev/ttyS1";

/// Sends a frame, and returns when the port has transmitted it.
///
/// The port is opened for each frame: the 8250 driver polls an open port several
/// times a second, and each poll wakes an idle guest.
///
/// # Errors
/// If the port cannot be opened or written to.
pub fn send(frame: &Frame) -> Result<()> {
    let failed = |tried: &'static str| move |e| Error::kernel(PORT, tried, e);
    let errno = |tried: &'static str| move |e: nix::Error| failed(tried)(e.into());
    let mut port = File::options()
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(PORT)
        .map_err(failed("open"))?;
    // Without raw mode the line discipline converts every \n of a frame to \r\n.
    let mut raw = tcgetattr(&port).map_err(errno("tcgetattr"))?;
    cfmakeraw(&mut raw);
    tcsetattr(&port, SetArg::TCSANOW, &raw).map_err(errno("tcsetattr"))?;
    port.write_all(&frame.encode()).map_err(failed("write"))?;
    tcdrain(&port).map_err(errno("tcdrain"))
}
