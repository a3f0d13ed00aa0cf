//! The commands that faultlab adds to a shell: `check`, and in an exercise `hint` and
//! `solution`.
//!
//! Each command is a symbolic link to this program. It sends a request to the worker
//! over a Unix socket, and the worker answers in lines of JSON.

use std::io::{self, BufRead, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream as Client;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{mounts, names};
use faultlab_base::error::{Error, Result};
use faultlab_report::Style;

/// The directory of the commands and the socket.
pub(super) const PLACE: &str = "/run/faultlab";
const SOCKET: &str = "/run/faultlab/.worker";

/// A command of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShellCommand {
    /// The next hint of an exercise.
    Hint,
    /// Play the probes again, on the network in its current state.
    Check,
    /// The cause of the fault of an exercise, and its remedies.
    Solution,
}

impl ShellCommand {
    /// The commands of an exercise.
    pub(super) const EXERCISE: &'static [Self] = &[Self::Hint, Self::Check, Self::Solution];
    /// The commands of a shell without an exercise.
    pub(super) const PLAIN: &'static [Self] = &[Self::Check];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Check => "check",
            Self::Solution => "solution",
        }
    }

    /// The command with the name that this program was started by, if there is one.
    #[must_use]
    pub fn asked(program: &str) -> Option<Self> {
        let name = Path::new(program).file_name()?;
        Self::EXERCISE.iter().copied().find(|command| name == command.name())
    }

    /// How to start a shell that has it.
    const fn place(self) -> &'static str {
        match self {
            Self::Check => "`faultlab shell SCENARIO`",
            Self::Hint | Self::Solution => "`faultlab shell SCENARIO --exercise`",
        }
    }
}

/// A request to the worker.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    command: ShellCommand,
    style: Style,
}

/// The worker's answers, one per line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// Text for the user.
    Text(String),
    /// The command's exit status; always the last answer.
    Done(u8),
}

/// Sends a request to the worker of this shell, passes its answers to `tell` as they
/// arrive, and returns the exit status. `check` exits with 0 if the symptom is gone,
/// with 1 if it is still there or the probes ended before they observed it, and with 69
/// if the network could not be prepared for them.
///
/// # Errors
/// [`Error::Lab`] outside of such a shell; any error of `tell`.
pub fn ask<E: From<Error>>(
    command: ShellCommand,
    style: Style,
    mut tell: impl FnMut(&str) -> Result<(), E>,
) -> Result<u8, E> {
    let failed = |tried: &str, e: io::Error| Error::kernel(command.name(), tried, e);
    let mut worker = Client::connect(SOCKET).map_err(|_| {
        Error::Lab(format!("{} works in the shell of {} only", command.name(), command.place()))
    })?;
    let question = serde_json::to_string(&Question { command, style }).expect("plain data");
    writeln!(worker, "{question}").map_err(|e| failed("ask the worker", e))?;
    for line in io::BufReader::new(worker).lines() {
        let line = line.map_err(|e| failed("read the worker's answer", e))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Text(text)) => tell(&text)?,
            Ok(Answer::Done(status)) => return Ok(status),
            Err(error) => return Err(Error::Lab(format!("the worker said {line:?}: {error}")).into()),
        }
    }
    Err(Error::Lab("the shell has ended".into()).into())
}

/// The installed commands of a shell: the socket on which their requests arrive.
#[derive(Debug)]
pub(super) struct Commands(UnixListener);

impl Commands {
    /// Creates the links and the socket in [`PLACE`], in this mount namespace only.
    pub(super) fn install(commands: &[ShellCommand]) -> Result<Self> {
        let install = || {
            let place = Path::new(PLACE);
            names::make(place)?;
            // In a guest, and without confinement, the program is only at its own path.
            let own = Path::new(mounts::PROGRAM);
            let program = if own.exists() { own.to_path_buf() } else { std::env::current_exe()? };
            for command in commands {
                symlink(&program, place.join(command.name()))?;
            }
            UnixListener::bind(SOCKET)
        };
        let socket = install().map_err(|e| Error::kernel("shell", format!("make {PLACE}"), e))?;
        Ok(Self(socket))
    }

    /// Waits for the next request. Invalid requests are skipped.
    pub(super) async fn next(&self) -> Result<Request> {
        loop {
            let (stream, _) = self.0.accept().await.map_err(|e| Error::kernel("shell", "accept", e))?;
            let mut asker = BufReader::new(stream);
            let mut line = String::new();
            if asker.read_line(&mut line).await.is_ok()
                && let Ok(Question { command, style }) = serde_json::from_str(&line)
            {
                return Ok(Request { command, style, asker });
            }
        }
    }
}

/// A request of a command, which waits for the answers unless it is interrupted.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: ShellCommand,
    pub(super) style: Style,
    asker: BufReader<UnixStream>,
}

impl Request {
    /// Sends text to print.
    pub(super) async fn say(&mut self, text: String) -> io::Result<()> {
        self.tell(&Answer::Text(text)).await
    }

    /// Ends the command with this exit status.
    pub(super) async fn done(mut self, status: u8) -> io::Result<()> {
        self.tell(&Answer::Done(status)).await
    }

    /// Waits until the command closes the connection: it was interrupted.
    pub(super) async fn interrupted(&mut self) {
        // A command sends one line only, so this read ends at the end of the stream.
        let _ = self.asker.read(&mut [0]).await;
    }

    async fn tell(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer).expect("plain data");
        line.push(b'\n');
        self.asker.write_all(&line).await
    }
}
