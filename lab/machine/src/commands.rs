//! The commands that a shell has besides the system's own: `check`, and `hint` and
//! `solution` in an exercise.
//!
//! The commands are this program under other names. They send requests to the
//! worker over a socket beside them, and it answers in lines of JSON.

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
    /// The whole story of an exercise.
    Solution,
}

impl ShellCommand {
    /// The commands of an exercise.
    pub(super) const EXERCISE: &'static [Self] = &[Self::Hint, Self::Check, Self::Solution];
    /// The commands of any other shell.
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

    /// The command that the program was started as, by its name.
    #[must_use]
    pub fn asked(program: &str) -> Option<Self> {
        let name = Path::new(program).file_name()?;
        Self::EXERCISE.iter().copied().find(|command| name == command.name())
    }

    /// The shells that have it.
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

/// Sends a request to the worker of the surrounding shell, passes its answers to
/// `tell` as they arrive, and returns the exit status: for a check, 1 if the
/// symptom is still there, and 69 if the probes could not be played.
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

/// The commands of a shell, installed where only its mount namespace has them.
#[derive(Debug)]
pub(super) struct Commands(UnixListener);

impl Commands {
    /// Installs them.
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

    /// The next request; one that cannot be read is skipped.
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

/// A request of a command that runs and waits for its answers. An interrupted
/// command does not read them.
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

    /// Waits until the command has ended by itself: it was interrupted.
    pub(super) async fn interrupted(&mut self) {
        // It sends nothing more.
        let _ = self.asker.read(&mut [0]).await;
    }

    async fn tell(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer).expect("plain data");
        line.push(b'\n');
        self.asker.write_all(&line).await
    }
}
