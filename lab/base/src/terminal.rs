//! Standard output and standard error. All text for people goes through this
//! module, which escapes control characters in untrusted text.

mod closed;
mod passed_on;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use crate::{locale, text};

pub use passed_on::PassedOn;

/// Writes text for people to standard output. Box-drawing characters become ASCII
/// unless the locale is UTF-8.
///
/// # Errors
/// If standard output was closed at the start of this program, or write(2) fails: the
/// disk is full (ENOSPC), or the pipe has no reader (EPIPE).
pub fn print(page: &str) -> io::Result<()> {
    print_bytes(locale::drawn(&text::page(page)).as_bytes())
}

/// Writes text for programs, such as JSON: UTF-8 in every locale.
///
/// # Errors
/// As [`print()`].
pub fn print_data(page: &str) -> io::Result<()> {
    print_bytes(text::page(page).as_bytes())
}

/// Writes bytes that this program itself generated, such as a manual page.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    is_open()?;
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Passes on output of another program: unchanged to a file or a pipe. To a terminal,
/// only text and colours; all other control sequences are escaped.
///
/// # Errors
/// If the stream cannot be written to.
pub fn pass_on(bytes: &[u8], to: &mut PassedOn) -> io::Result<()> {
    let error = to.is_error();
    let is_terminal = if error { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let shown = if is_terminal { to.clean(bytes) } else { bytes.to_owned() };
    let mut out: Box<dyn Write> = if error { Box::new(io::stderr()) } else { Box::new(io::stdout().lock()) };
    out.write_all(&shown)?;
    out.flush()
}

/// Checks that standard output is open, before a run whose results would be lost.
///
/// # Errors
/// If the program was started with standard output closed (`>&-`). Rust then
/// opens /dev/null in its place, which accepts everything.
pub fn is_open() -> io::Result<()> {
    if closed::standard_output() { Err(io::Error::other("standard output is closed")) } else { Ok(()) }
}

/// Writes a sentence to standard error, after this program's name. Further lines,
/// such as a guest's console output, are indented, so that none of them looks
/// like a line of this program.
///
/// If standard error has no reader, the exit status still reports the failure.
pub fn say(sentence: &str) {
    complain(&format!("faultlab: {}", indented(sentence)));
}

/// Writes lines to standard error, without a prefix. Errors are ignored.
pub fn complain(lines: &str) {
    let _ = writeln!(io::stderr(), "{}", text::page(lines));
}

/// The start of the line that reports a panic.
pub const PANICKED: &str = "faultlab: panicked at ";

/// Installs a panic hook that reports a panic in one line, followed by a backtrace if
/// `RUST_BACKTRACE` is set.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        complain(&sentence(panic));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            complain(&trace.to_string());
        }
    }));
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
    text::line(&format!("{PANICKED}{place}: {words}")).into_owned()
}

fn indented(text: &str) -> String {
    text::lines(text.trim_end()).replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_console_line_is_no_sentence_of_this_program() {
        let told = indented("the guest hangs\nfaultlab: all as expected\x1b[2J\r\n");
        assert_eq!(told, "the guest hangs\n  faultlab: all as expected\\x1b[2J");
    }

    #[test]
    fn a_panic_is_one_sentence_before_its_backtrace() {
        const PANICS: &str = "FAULTLAB_TEST_PANICS";
        if std::env::var_os(PANICS).is_some() {
            install_panic_hook();
            panic!("one\nfaultlab: two\x1b[2J");
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "terminal::tests::a_panic_is_one_sentence_before_its_backtrace";
        again.args(["--exact", name, "--nocapture"]).env(PANICS, "1").env("RUST_BACKTRACE", "1");
        let said = String::from_utf8(again.output().unwrap().stderr).unwrap();
        let sentence = said.lines().find(|line| line.starts_with("faultlab:")).unwrap();
        assert!(sentence.starts_with(PANICKED), "{said}");
        assert!(sentence.ends_with(": one\\nfaultlab: two\\x1b[2J"), "{said}");
        assert_eq!(
            said.matches("\nfaultlab:").count() + usize::from(said.starts_with("faultlab:")),
            1,
            "{said}"
        );
        assert!(said.contains("a_panic_is_one_sentence_before_its_backtrace"), "{said}");
    }

    /// Files that may write directly: this one, the worker's JSON output, and the
    /// interactive screen of a guest.
    const WRITERS: [&str; 3] =
        ["base/src/terminal.rs", "machine/src/worker.rs", "machine/src/vm/serial_console.rs"];

    #[test]
    fn nothing_else_writes_to_a_terminal() {
        let (mut folders, mut found) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")], vec![]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    // Tests, benchmarks and the harness of tests may print.
                    if !["tests", "benches", "testkit"].iter().any(|name| path.ends_with(name)) {
                        folders.push(path);
                    }
                    continue;
                }
                if path.extension().is_none_or(|end| end != "rs") {
                    continue;
                }
                let Ok(text) = fs::read_to_string(&path) else { continue };
                // Tests may print.
                let code: String = text.split("#[cfg(test)]").next().unwrap().split_whitespace().collect();
                let writes = [
                    "print!(",
                    "println!(",
                    "write!(io::",
                    "writeln!(io::",
                    "stdout().lock()",
                    "stderr().lock()",
                ];
                if !WRITERS.iter().any(|file| path.ends_with(file))
                    && writes.iter().any(|write| code.contains(write))
                {
                    found.push(path);
                }
            }
        }
        assert!(found.is_empty(), "these write to a terminal by themselves: {found:?}");
    }
}
