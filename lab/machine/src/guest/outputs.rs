//! Standard output and error of a shell whose user has no terminal: pipes, which init
//! reads and sends to the host. On the console the two would be mixed with each other,
//! with the echo of the input and with prompts.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use tokio::net::unix::pipe::Receiver;

use super::line;
use crate::protocol::{Frame, STDERR, STDOUT};
use faultlab_base::error::{Error, Result};

/// The maximum size of a frame's body.
const PIECE: usize = 16 << 10;

/// The read ends of a shell's standard output and error, as long as they are open.
#[derive(Debug)]
pub(crate) struct Outputs([Option<Receiver>; 2]);

impl Outputs {
    /// Creates both pipes; also returns their write ends.
    ///
    /// # Errors
    /// If the kernel refuses a pipe.
    pub(super) fn new() -> Result<(Self, [OwnedFd; 2])> {
        let (out, out_end) = pipe()?;
        let (err, err_end) = pipe()?;
        Ok((Self([Some(out), Some(err)]), [out_end, err_end]))
    }

    /// Sends output as it arrives, for ever.
    ///
    /// # Errors
    /// If a pipe cannot be read, or a frame cannot be sent.
    pub(crate) async fn pass_on(&mut self) -> Result<Infallible> {
        loop {
            let [out, err] = &self.0;
            // A pipe that cannot be awaited is closed by the next read.
            tokio::select! {
                () = readable(out.as_ref()) => {}
                () = readable(err.as_ref()) => {}
            }
            self.rest()?;
        }
    }

    /// Sends the output that the pipes hold.
    ///
    /// # Errors
    /// If a pipe cannot be read, or a frame cannot be sent.
    pub(crate) fn rest(&mut self) -> Result<()> {
        let mut piece = vec![0; PIECE];
        for (output, kind) in self.0.iter_mut().zip([STDOUT, STDERR]) {
            while let Some(pipe) = output {
                match pipe.try_read(&mut piece) {
                    Ok(0) => *output = None,
                    Ok(length) => line::send(&Frame::new(kind, &piece[..length]))?,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(Error::kernel("shell", "read its output", e)),
                }
            }
        }
        Ok(())
    }
}

async fn readable(output: Option<&Receiver>) {
    match output {
        Some(pipe) => drop(pipe.readable().await),
        None => pending().await,
    }
}

fn pipe() -> Result<(Receiver, OwnedFd)> {
    let failed = |tried: &'static str| move |e| Error::kernel("shell", tried, e);
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("pipe2")(e.into()))?;
    Ok((Receiver::from_owned_fd(read).map_err(failed("await a pipe"))?, write))
}
