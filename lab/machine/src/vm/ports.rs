//! The output of a guest: the bytes of its two serial ports, and QEMU's error
//! messages. What is kept is bounded; frames are passed on as they arrive.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::budget::Over;
use super::console::Console;
use super::end::{ExitReason, GuestEnd};
use super::qemu::LaunchMode;
use crate::protocol::{Decoder, Frame};
use faultlab_base::error::{Error, Result};

/// The capacity of a pipe: more than a guest prints while this process waits for a CPU.
/// A full pipe would affect the guest's timing.
const PIPE_SIZE: i32 = 1 << 20;

/// The maximum size of QEMU's error messages that are kept.
const SAID_MAX: usize = 64 << 10;

/// The maximum time to read the last output of a QEMU that has ended from its pipes.
pub(super) const LEFT_IN_PIPES: Duration = Duration::from_secs(5);

/// The same for one that was interrupted: the user waits for the end.
pub(super) const LEFT_IN_A_HURRY: Duration = Duration::from_millis(200);

/// Receives frames as they arrive. An error ends the guest, with that reason.
pub type OnFrame<'a> = dyn FnMut(&Frame) -> Result<()> + 'a;

/// The output of the two serial ports so far, and of QEMU itself.
#[derive(Default)]
pub(super) struct Ports {
    pub console: Console,
    decoder: Decoder,
    pub frames: usize,
    said: Vec<u8>,
}

impl Ports {
    /// Passes on the frames that these bytes complete, and returns their number.
    ///
    /// # Errors
    /// Why the guest must be ended.
    pub fn report(&mut self, bytes: &[u8], on_frame: &mut OnFrame<'_>) -> Result<usize> {
        let frames = self.decoder.push(bytes);
        self.hand_on(&frames, on_frame)
    }

    fn hand_on(&mut self, frames: &[Frame], on_frame: &mut OnFrame<'_>) -> Result<usize> {
        self.frames += frames.len();
        frames.iter().try_for_each(on_frame)?;
        if self.decoder.is_spent() {
            let noise = self.decoder.noise();
            return Err(Error::Lab(format!(
                "its second serial port is for reports, and {noise} bytes there were part of none"
            )));
        }
        Ok(frames.len())
    }

    /// Records error messages of QEMU.
    pub fn complain(&mut self, bytes: &[u8]) {
        let room = SAID_MAX - self.said.len();
        self.said.extend(&bytes[..room.min(bytes.len())]);
    }

    /// The end of a guest that has run out of time.
    pub fn overdue(&self, over: Over) -> ExitReason {
        match over {
            Over::Silent(waited) if self.frames == 0 => ExitReason::NeverBooted { waited },
            Over::Silent(waited) => ExitReason::Hung { waited },
            Over::InAll(had) => ExitReason::Late { had },
            Over::Still(waited) => ExitReason::Still { waited },
        }
    }

    /// The end of the guest, after the last bytes of the second port.
    pub fn end(
        mut self,
        mode: LaunchMode,
        how: ExitReason,
        rest: &[u8],
        on_frame: &mut OnFrame<'_>,
    ) -> GuestEnd {
        let how = if matches!(how, ExitReason::Refused(_)) {
            how
        } else {
            let last = self.report(rest, on_frame).and_then(|_| {
                if how == ExitReason::Interrupted {
                    // The rest of a frame was never sent.
                    return Ok(0);
                }
                let cut = self.decoder.finish();
                self.hand_on(&cut, on_frame)
            });
            last.err().map_or(how, |error| ExitReason::Refused(error.to_string()))
        };
        let how = match (self.console.panic(), how) {
            (_, how @ (ExitReason::Refused(_) | ExitReason::Interrupted)) => how,
            (Some(line), _) => ExitReason::Panicked(line),
            (None, ExitReason::Died { status, .. }) => {
                ExitReason::Died { status, said: String::from_utf8_lossy(&self.said).into_owned() }
            }
            (None, how) => how,
        };
        GuestEnd { mode, how, frames: self.frames, noise: self.decoder.noise(), console: self.console }
    }
}

/// The next bytes of a port; at its end it never returns.
pub(super) async fn some(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> usize {
    poll_fn(|cx| {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *pipe).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(buffer.filled().len()),
            // The end of the pipe means that QEMU ends, which is awaited elsewhere.
            _ => Poll::Pending,
        }
    })
    .await
}

/// The rest of the data in the pipe of a process that has ended, as far as it
/// arrives within `wait`.
pub(super) async fn rest(pipe: &mut (impl AsyncRead + Unpin), wait: Duration) -> Vec<u8> {
    let mut rest = Vec::new();
    // A pipe holds no more than that. Without this limit a process that keeps it open
    // could write for ever.
    let most = u64::from(PIPE_SIZE.unsigned_abs());
    let _ = timeout(wait, pipe.take(most).read_to_end(&mut rest)).await;
    rest
}

/// The two ends of a serial port: one for this process to read, one for QEMU.
pub(crate) fn port() -> Result<(Receiver, OwnedFd)> {
    let failed = |tried: &'static str| move |e| Error::kernel("serial port", tried, e);
    let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("pipe2")(e.into()))?;
    // This fails for a user with many pipes (pipe(7), pipe-user-pages-soft); then the
    // capacity stays 64 KiB.
    let _ = fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((Receiver::from_owned_fd(out).map_err(failed("await the pipe"))?, into))
}
