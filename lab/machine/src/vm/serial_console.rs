//! Connects a guest's first serial port with this process's standard input and output,
//! which need not be a terminal.

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

/// Ctrl-D, a terminal's end of input.
const END: u8 = 0x04;
/// How often [`END`] is sent. In canonical mode drivers/tty/n_tty.c stores it as NUL; a
/// shell that then switches to non-canonical mode, as readline does, reads NUL and waits
/// for more.
const PRESSED_EVERY: Duration = Duration::from_secs(1);
/// Ctrl-], the only key that is not passed to the guest: it ends a guest that hangs.
const ESCAPE: u8 = 0x1d;
/// The maximum number of reads of standard input that are queued for the guest.
const AHEAD: usize = 256;

/// The console of a guest, to which the user may be attached.
#[derive(Debug)]
pub struct SerialConsole {
    attached: RefCell<Option<Attached>>,
    /// Whether the shell's output arrives in frames on the second port, and only its
    /// input goes through the console.
    piped: bool,
}

#[derive(Debug)]
struct Attached {
    keys: Receiver<Vec<u8>>,
    /// Keeps the terminal in raw mode, if there is one.
    _raw: Option<Raw>,
}

impl SerialConsole {
    /// A console to which nobody is attached. If it is `piped`, the shell's output
    /// arrives on the second port, and only the kernel's messages here.
    #[must_use]
    pub fn new(piped: bool) -> Self {
        Self { attached: RefCell::default(), piped }
    }

    /// Whether the shell's output arrives on the second port.
    #[must_use]
    pub fn is_piped(&self) -> bool {
        self.piped
    }

    /// Passes input to the guest from now on, including Ctrl-C, and shows the guest's
    /// output. Ctrl-] at a terminal sends SIGINT to this process.
    pub fn attach(&self) {
        let (tell, keys) = channel(AHEAD);
        let raw = Raw::begin();
        let terminal = raw.is_some();
        // Not joined: the thread may block in a read until this process ends.
        thread::spawn(move || if terminal { pass_on_keys(&tell) } else { pass_on_all(&tell) });
        *self.attached.borrow_mut() = Some(Attached { keys, _raw: raw });
    }

    /// Whether the user is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.borrow().is_some()
    }

    /// The next input; waits for ever if nobody is attached or the input has ended.
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

/// Writes output of the guest to standard output, or to standard error if `error` is
/// set. Errors are ignored: the shell works without a reader.
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

/// Passes on a pipe or a file as fast as the guest takes it, and then Ctrl-D until the
/// guest has ended.
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
        // An error is expected after a hangup.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
