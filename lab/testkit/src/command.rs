//! Runs a program as a user does, and collects its output.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The exit status and the output of a command.
#[derive(Debug)]
pub struct Answer {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A command line: `line` is split at white space. Environment variables that change the
/// output are removed or fixed, and standard input is empty.
pub fn command(program: impl AsRef<OsStr>, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "FAULTLAB_REQUIRE_ALL"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command to its end, with its output in two pipes.
///
/// # Panics
/// If it does not start, or its output is not UTF-8.
pub fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program starts");
    Answer {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}
