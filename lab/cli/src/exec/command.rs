//! Resolves the command line of `exec` into a program and its environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Exec;
use faultlab_base::text;
use faultlab_machine::exec::ExecOrder;
use faultlab_machine::exec::order::{OUT, OUTPUT_MAX, PATH};
use faultlab_machine::vm::program_named;

/// Why a command cannot be started, and the exit status that a shell would give.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFound {
    pub status: u8,
    pub sentence: String,
}

/// The environment of every command, before `--env`.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("PATH", PATH),
    // Writable both in a guest and on the running kernel.
    ("HOME", "/tmp"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("OUT", OUT),
];

/// Parses `NAME=VALUE`.
///
/// # Errors
/// A sentence that gives the syntax.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is NAME=VALUE".to_owned()),
    }
}

/// The command to run, with the program resolved.
///
/// # Errors
/// If the program is not found or not executable, or the path of `--stdin` is invalid.
pub(super) fn order(raw: &Exec) -> Result<ExecOrder, NotFound> {
    let mut environment: Vec<(OsString, OsString)> =
        ENVIRONMENT.map(|(name, value)| (name.into(), value.into())).into();
    for (name, value) in &raw.env {
        environment.retain(|(old, _)| old != name.as_str());
        environment.push((name.into(), value.into()));
    }
    let stdin = raw.stdin.as_deref().map(std::path::absolute).transpose();
    let stdin = stdin.map_err(|error| NotFound { status: 2, sentence: format!("--stdin: {error}") })?;
    Ok(ExecOrder {
        program: program(&raw.command[0])?,
        arguments: raw.command.clone(),
        environment,
        directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        stdin,
        limit: raw.virtual_timeout,
        output_max: OUTPUT_MAX,
        send_files: raw.out.is_some(),
    })
}

/// The path of a program, looked up as a shell does: in the search path, unless the name
/// contains a slash.
fn program(typed: &OsString) -> Result<PathBuf, NotFound> {
    let shown = text::line(&typed.to_string_lossy()).into_owned();
    let not_found = |why: &str| NotFound { status: 127, sentence: format!("{shown}: {why}") };
    if !typed.as_encoded_bytes().contains(&b'/') {
        return match program_named(&typed.to_string_lossy()) {
            Ok(Some(program)) => Ok(program),
            Ok(None) => Err(not_found(
                "command not found on this machine, from which it is brought along; install it here, or give \
                 its path",
            )),
            Err(error) => Err(NotFound { status: 126, sentence: error.to_string() }),
        };
    }
    let path = std::path::absolute(Path::new(typed)).map_err(|error| not_found(&error.to_string()))?;
    if !path.exists() {
        return Err(not_found("no such file"));
    }
    if path.is_dir() || access(&path, AccessFlags::X_OK).is_err() {
        let why = if path.is_dir() { "it is a directory" } else { "it is not executable; chmod +x it" };
        return Err(NotFound { status: 126, sentence: format!("{shown}: {why}") });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let status = |typed: &str| program(&typed.into()).map_err(|not_found| not_found.status);
        assert!(status("sh").unwrap().ends_with("sh"));
        assert_eq!(status("/bin/sh").unwrap(), Path::new("/bin/sh"));
        assert_eq!(status("no-such-command"), Err(127));
        assert_eq!(status("./no-such-command"), Err(127));
        assert_eq!(status("/etc/passwd"), Err(126));
        assert_eq!(status("/etc"), Err(126));
    }

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        assert!(variable("A").is_err() && variable("=b").is_err());
    }
}
