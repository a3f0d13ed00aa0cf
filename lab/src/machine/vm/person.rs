//! A person at a guest's first serial port: this process's own standard input
//! and output, a terminal or not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::getpid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What ends a terminal's input, Ctrl-D.
const END: u8 = 0x04;
/// The one key of a terminal that is not the guest's, Ctrl-]: a guest may hang.
const ESCAPE: u8 = 0x1d;

/// A person who is to sit down at a guest.
#[derive(Debug, Default)]
pub struct Person {
    seat: RefCell<Option<Seat>>,
}

#[derive(Debug)]
struct Seat {
    keys: UnboundedReceiver<Vec<u8>>,
    /// The terminal, where there is one.
    _raw: Option<Raw>,
}

impl Person {
    /// From now on what is typed goes to the guest, Ctrl-C too, and what the
    /// guest prints is shown. Ctrl-] at a terminal is SIGINT to this process.
    pub fn sit_down(&self) {
        let (tell, keys) = unbounded_channel();
        let raw = Raw::begin();
        let terminal = raw.is_some();
        // The thread may wait for a key when this process ends, and ends with it.
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
                if terminal && buffer[..length].contains(&ESCAPE) {
                    // As Ctrl-C ends what runs on this machine.
                    let _ = kill(getpid(), Signal::SIGINT);
                    return;
                }
                if tell.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
            let _ = tell.send(vec![END]);
        });
        *self.seat.borrow_mut() = Some(Seat { keys, _raw: raw });
    }

    /// Whether somebody has sat down.
    pub(super) fn sits(&self) -> bool {
        self.seat.borrow().is_some()
    }

    /// The keys that were typed since; without a person, none ever.
    pub(super) async fn keys(&self) -> Vec<u8> {
        poll_fn(|context| match &mut *self.seat.borrow_mut() {
            Some(seat) => match seat.keys.poll_recv(context) {
                Poll::Ready(Some(keys)) => Poll::Ready(keys),
                _ => Poll::Pending,
            },
            None => Poll::Pending,
        })
        .await
    }

    /// Shows what the guest printed.
    pub(super) fn show(&self, bytes: &[u8]) {
        if self.seat.borrow().is_some() {
            let mut screen = io::stdout().lock();
            // Where nobody reads it, the shell still works.
            let _ = screen.write_all(bytes).and_then(|()| screen.flush());
        }
    }
}

/// A terminal that passes every key on as it is.
#[derive(Debug)]
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// None where standard input is no terminal.
    fn begin() -> Option<Self> {
        let terminal = io::stdin().as_fd().try_clone_to_owned().ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that hung up is nobody's.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
