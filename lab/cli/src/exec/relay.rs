//! Handles the output of a command: passes it on as it arrives, keeps it for a comparison or
//! for JSON, and searches it for commands that were not found.

use std::collections::BTreeSet;
use std::io;

use super::Stop;
use faultlab_base::error::{Error, Result};
use faultlab_base::terminal::{self, PassedOn};
use faultlab_machine::exec::Stream;

/// The maximum number of commands that are named as not found.
const NAMES_MAX: usize = 8;
/// How much of a line is searched, in bytes.
const LINE_MAX: usize = 512;

/// Handles the output of one command.
#[derive(Debug)]
pub(super) struct Relay {
    shows: bool,
    keeps: bool,
    outputs: [PassedOn; 2],
    kept: [Vec<u8>; 2],
    /// The incomplete last line of standard error, at most [`LINE_MAX`] bytes.
    line: Vec<u8>,
    not_found: BTreeSet<String>,
    failed: Option<io::Error>,
}

/// What a command has printed.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The commands that a shell or env(1) reported as not found.
    pub not_found: BTreeSet<String>,
}

impl Relay {
    /// A relay that passes output on if it `shows`, and keeps it if it `keeps`.
    pub(super) fn new(shows: bool, keeps: bool) -> Self {
        Self {
            shows,
            keeps,
            outputs: [PassedOn::stdout(), PassedOn::stderr()],
            kept: [vec![], vec![]],
            line: vec![],
            not_found: BTreeSet::new(),
            failed: None,
        }
    }

    /// Handles a piece of output.
    ///
    /// # Errors
    /// If it cannot be passed on. [`finish`](Self::finish) returns the cause.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        let at = usize::from(stream == Stream::Stderr);
        if stream == Stream::Stderr {
            self.search(bytes);
        }
        if self.keeps {
            self.kept[at].extend(bytes);
        }
        if self.shows
            && let Err(error) = terminal::pass_on(bytes, &mut self.outputs[at])
        {
            self.failed = Some(error);
            return Err(Error::Lab("nobody reads its output".to_owned()));
        }
        Ok(())
    }

    /// The output that was kept.
    ///
    /// # Errors
    /// If output could not be passed on.
    pub(super) fn finish(mut self) -> std::result::Result<Written, Stop> {
        self.search(b"\n");
        let [stdout, stderr] = self.kept;
        match self.failed {
            Some(error) => Err(Stop::Output(error)),
            None => Ok(Written { stdout, stderr, not_found: self.not_found }),
        }
    }

    fn search(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let name = str::from_utf8(&line).ok().and_then(not_found);
                if self.not_found.len() < NAMES_MAX {
                    self.not_found.extend(name.map(str::to_owned));
                }
            }
        }
    }
}

/// The name of the command that a message of a shell or of env(1) reports as not found:
/// `bash: line 1: x: command not found`, `./script: 2: x: not found`, `env: 'x': No such
/// file or directory`.
fn not_found(line: &str) -> Option<&str> {
    let line = line.trim_end();
    let of_shell = line.strip_suffix(": command not found").or_else(|| line.strip_suffix(": not found"));
    let name = if let Some(rest) = of_shell {
        rest.rsplit(": ").next()?
    } else {
        let (program, quoted) = line.strip_suffix(": No such file or directory")?.split_once(": ")?;
        (program == "env" || program.ends_with("/env")).then_some(())?;
        quoted.trim_matches(['\'', '\u{2018}', '\u{2019}'])
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    (!name.is_empty() && name.len() < 64 && !name.starts_with('-') && name.bytes().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_not_found_is_named() {
        for (line, name) in [
            ("./reproduce.sh: line 3: iptables: command not found\n", Some("iptables")),
            ("bash: line 1: g++: command not found", Some("g++")),
            ("/tmp/a: 2: python3: not found", Some("python3")),
            ("sh: curl: not found", Some("curl")),
            ("env: \u{2018}python3\u{2019}: No such file or directory", Some("python3")),
            ("/usr/bin/env: 'perl': No such file or directory", Some("perl")),
            ("cat: x: No such file or directory", None),
            ("curl: (22) The requested URL returned error: 404 not found", None),
            ("bash: line 1: \x1b[2J: command not found", None),
            ("x: command not found: y", None),
        ] {
            assert_eq!(not_found(line), name, "{line}");
        }
    }

    #[test]
    fn pieces_of_a_line_are_searched_together() {
        let mut relay = Relay::new(false, true);
        for piece in ["sh: 1: a", "b: not found\nsh: 2: c: not fo", "und"] {
            relay.take(Stream::Stderr, piece.as_bytes()).unwrap();
        }
        relay.take(Stream::Stdout, b"sh: 3: d: not found\n").unwrap();
        let written = relay.finish().unwrap();
        assert_eq!(written.not_found.into_iter().collect::<Vec<_>>(), ["ab", "c"]);
        assert_eq!(written.stdout, b"sh: 3: d: not found\n");
    }
}
