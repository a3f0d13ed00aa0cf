//! A guest's first serial port as a console on this process's own standard input
//! and output, which need not be a terminal.

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

/// The end of a terminal's input, Ctrl-D.
const END: u8 = 0x04;
/// How often it is pressed. While a line is being read, drivers/tty/n_tty.c stores
/// it as NUL; a shell that then begins to read key by key, as readline does, reads
/// NUL and waits for more.
const PRESSED_EVERY: Duration = Duration::from_secs(1);
/// The only key that is not passed to the guest, Ctrl-]: a guest may hang.
const ESCAPE: u8 = 0x1d;
/// How many reads of standard input may be queued for the guest.
const AHEAD: usize = 256;

/// The console of a guest, to which a person may be attached.
#[derive(Debug)]
pub struct SerialConsole {
    attached: RefCell<Option<Attached>>,
    /// Whether it only takes input: the shell's output comes another way.
    piped: bool,
}

#[derive(Debug)]
struct Attached {
    keys: Receiver<Vec<u8>>,
    /// Keeps the terminal in raw mode, if there is one.
    _raw: Option<Raw>,
}

impl SerialConsole {
    /// A console to which nobody is attached. If it is `piped`, a shell prints
    /// elsewhere, and what is left here are the kernel's messages.
    #[must_use]
    pub fn new(piped: bool) -> Self {
        Self { attached: RefCell::default(), piped }
    }

    /// Whether the shell's output comes another way.
    #[must_use]
    pub fn is_piped(&self) -> bool {
        self.piped
    }

    /// From now on input goes to the guest, including Ctrl-C, and the guest's
    /// output is shown. Ctrl-] at a terminal sends SIGINT to this process.
    pub fn attach(&self) {
        let (tell, keys) = channel(AHEAD);
        let raw = Raw::begin();
        let terminal = raw.is_some();
        // The thread may wait for a key when this process ends, and ends with it.
        thread::spawn(move || if terminal { pass_on_keys(&tell) } else { pass_on_all(&tell) });
        *self.attached.borrow_mut() = Some(Attached { keys, _raw: raw });
    }

    /// Whether a person is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.borrow().is_some()
    }

    /// The keys typed since the last call; without a person, waits for ever.
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

    /// Shows output of the guest.
    pub(super) fn show(&self, bytes: &[u8]) {
        if self.is_attached() {
            write(bytes, self.piped);
        }
    }
}

/// Writes output of the guest to standard output or `error`. If nobody reads it,
/// the shell still works.
pub(super) fn write(bytes: &[u8], error: bool) {
    let _ = if error {
        io::stderr().lock().write_all(bytes)
    } else {
        let mut screen = io::stdout().lock();
        screen.write_all(bytes).and_then(|()| screen.flush())
    };
}

/// Passes on the keys typed at a terminal, as long as the guest takes them.
fn pass_on_keys(tell: &Sender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
        let keys = &buffer[..length];
        if keys.contains(&ESCAPE) {
            // Like Ctrl-C for a program on this machine.
            let _ = kill(getpid(), Signal::SIGINT);
            return;
        }
        // If a guest hangs the keys are lost, but Ctrl-] still works.
        if let Err(TrySendError::Closed(_)) = tell.try_send(keys.to_vec()) {
            return;
        }
    }
}

/// Passes on a pipe or a file as fast as the guest takes it, and then its end until
/// the guest has reacted.
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

/// A terminal in raw mode.
#[derive(Debug)]
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// `None` if standard input is not a terminal.
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
        // A terminal that was hung up fails here.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
