//! A pseudoterminal for programs under test: pty(7).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::PATIENCE;

/// A terminal of 100 columns and 40 lines.
#[derive(Debug)]
pub struct Terminal {
    screen: Receiver<String>,
    keyboard: File,
    seen: String,
    /// The slave side, for the program.
    side: OwnedFd,
}

impl Terminal {
    /// Opens a pseudoterminal and starts to read what programs write to it.
    #[must_use]
    pub fn new() -> Self {
        let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudoterminal");
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("FD_CLOEXEC");
        }
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        let (tell, screen) = channel();
        // The read fails with EIO once every descriptor of the slave side is closed.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send(text).is_err() {
                    break;
                }
            }
        });
        Self { screen, keyboard, seen: String::new(), side: pty.slave }
    }

    /// The terminal as a program's stdin, stdout or stderr.
    #[must_use]
    pub fn side(&self) -> Stdio {
        self.side.try_clone().expect("a descriptor").into()
    }

    /// The modes of the terminal: tcgetattr(3).
    #[must_use]
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.side).expect("it is a terminal")
    }

    /// Sets the modes of the terminal: tcsetattr(3).
    pub fn set_modes(&self, modes: &Termios) {
        tcsetattr(&self.side, SetArg::TCSANOW, modes).expect("it is a terminal");
    }

    /// Waits until the output contains a text.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub fn wait_for(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.seen.push_str(&more),
                Err(error) => panic!("{error}: waited {PATIENCE:?} for {text:?}; there is: {}", self.seen),
            }
        }
    }

    /// Waits until all programs have closed the terminal, and returns all output.
    #[must_use]
    pub fn text(mut self) -> String {
        drop(self.side);
        self.seen.extend(self.screen.iter());
        self.seen
    }

    /// Types a line, ended by Return.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).expect("the terminal takes keys");
    }

    /// Types Ctrl-C: the terminal sends SIGINT to its foreground process group.
    pub fn interrupt(&mut self) {
        self.press(b"\x03");
    }

    /// Types these bytes.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal takes keys");
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}
