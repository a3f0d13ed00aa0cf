//! A program started as a user starts it, and its answer.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The result of a command.
#[derive(Debug)]
pub struct Answer {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A program with these arguments, separated by spaces, and without the user's
/// settings.
pub fn command(program: impl AsRef<OsStr>, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "FAULTLAB_REQUIRE_ALL"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command with its output in two pipes.
pub fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program starts");
    Answer {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}
