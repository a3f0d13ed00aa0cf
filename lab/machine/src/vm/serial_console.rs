//! A guest's first serial port as a console: this process's own standard input
//! and output, a terminal or not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::getpid;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What ends a terminal's input, Ctrl-D.
const END: u8 = 0x04;
/// How often it is pressed. drivers/tty/n_tty.c stores it as NUL where a line is
/// being gathered; a shell that then begins to read key by key, as readline does,
/// reads NUL and waits on.
const PRESSED_EVERY: Duration = Duration::from_secs(1);
/// The one key of a terminal that is not the guest's, Ctrl-]: a guest may hang.
const ESCAPE: u8 = 0x1d;
/// How many reads of standard input may wait for the guest.
const AHEAD: usize = 256;

/// The console of a guest, to which a person may be attached.
#[derive(Debug, Default)]
pub struct SerialConsole {
    attached: RefCell<Option<Attached>>,
}

#[derive(Debug)]
struct Attached {
    keys: Receiver<Vec<u8>>,
    /// The terminal, where there is one.
    _raw: Option<Raw>,
}

impl SerialConsole {
    /// From now on what is typed goes to the guest, Ctrl-C too, and what the
    /// guest prints is shown. Ctrl-] at a terminal is SIGINT to this process.
    pub fn attach(&self) {
        let (tell, keys) = channel(AHEAD);
        let raw = Raw::begin();
        let terminal = raw.is_some();
        // The thread may wait for a key when this process ends, and ends with it.
        thread::spawn(move || if terminal { pass_on_keys(&tell) } else { pass_on_all(&tell) });
        *self.attached.borrow_mut() = Some(Attached { keys, _raw: raw });
    }

    /// Whether somebody has sat down.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.borrow().is_some()
    }

    /// The keys that were typed since; without a person, none ever.
    pub(super) async fn keys(&self) -> Vec<u8> {
        poll_fn(|context| match &mut *self.attached.borrow_mut() {
            Some(attached) => match attached.keys.poll_recv(context) {
                Poll::Ready(Some(keys)) => Poll::Ready(keys),
                _ => Poll::Pending,
            },
            None => Poll::Pending,
        })
        .await
    }

    /// Shows what the guest printed.
    pub(super) fn show(&self, bytes: &[u8]) {
        if self.attached.borrow().is_some() {
            let mut screen = io::stdout().lock();
            // Where nobody reads it, the shell still works.
            let _ = screen.write_all(bytes).and_then(|()| screen.flush());
        }
    }
}

/// Passes on what is typed at a terminal, as long as the guest takes it.
fn pass_on_keys(tell: &Sender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
        let keys = &buffer[..length];
        if keys.contains(&ESCAPE) {
            // As Ctrl-C ends what runs on this machine.
            let _ = kill(getpid(), Signal::SIGINT);
            return;
        }
        // Of a guest that hangs the keys are lost, and Ctrl-] is still seen.
        if let Err(TrySendError::Closed(_)) = tell.try_send(keys.to_vec()) {
            return;
        }
    }
}

/// Passes on a pipe or a file as fast as the guest takes it, and then its end
/// until the guest has understood.
fn pass_on_all(tell: &Sender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    let mut last = b'\n';
    while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
        last = buffer[length - 1];
        if tell.blocking_send(buffer[..length].to_vec()).is_err() {
            return;
        }
    }
    let mut end = if last == b'\n' { vec![END] } else { vec![b'\n', END] };
    while tell.blocking_send(end).is_ok() {
        end = vec![END];
        thread::sleep(PRESSED_EVERY);
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
