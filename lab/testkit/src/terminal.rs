//! A pseudoterminal: keys, and a screen to wait for.

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

/// A terminal of 100 columns.
#[derive(Debug)]
pub struct Terminal {
    screen: Receiver<String>,
    keyboard: File,
    seen: String,
    /// The program's side.
    side: OwnedFd,
}

impl Terminal {
    /// A terminal without any input yet.
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
        // Fails with EIO once the last program has closed its side.
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

    /// The modes of the terminal.
    #[must_use]
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.side).expect("it is a terminal")
    }

    /// Sets the modes of the terminal.
    pub fn set_modes(&self, modes: &Termios) {
        tcsetattr(&self.side, SetArg::TCSANOW, modes).expect("it is a terminal");
    }

    /// Waits until the text appears.
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

    /// All output, once all programs have ended.
    #[must_use]
    pub fn text(mut self) -> String {
        drop(self.side);
        self.seen.extend(self.screen.iter());
        self.seen
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).expect("the terminal takes keys");
    }

    /// Presses Ctrl-C: the terminal sends SIGINT to its foreground processes.
    pub fn interrupt(&mut self) {
        self.press(b"\x03");
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal takes keys");
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}
