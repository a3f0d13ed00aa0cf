//! What is looked for: words of the command line, files, and standard input.
//!
//! Files are evidence from anywhere: they may be large, cut, binary or hostile. Only
//! [`BYTES`] of all are read, one line at a time, and lines that differ in numbers only are
//! kept once, because a log repeats itself.

use std::collections::HashSet;
use std::fs::{File, FileType};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use faultlab_base::limits;

/// How much of all files is read.
const BYTES: u64 = 64 << 20;

/// How much of a file's different lines is kept, and how many.
const KEPT: usize = 16 << 20;
const LINES: usize = 50_000;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The words of the command line.
    pub(super) typed: String,
    /// Each file's name and lines.
    pub(super) files: Vec<Evidence>,
}

/// The lines of a file.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Its name, for people.
    pub(super) name: String,
    /// Its different lines, without blank ones. What is not UTF-8 is replaced.
    pub(super) lines: Vec<String>,
    /// Whether there was more.
    pub(super) cut: bool,
}

impl Input {
    /// Reads the arguments: `-` is standard input, the name of a file is that file, and
    /// everything else is text.
    ///
    /// # Errors
    /// If a file cannot be read: a sentence.
    pub(super) fn read(arguments: &[String]) -> Result<Self, String> {
        let (mut typed, mut input, mut left) = (vec![], Self::default(), BYTES);
        for argument in arguments {
            let file: Box<dyn Read> = if argument == "-" {
                Box::new(io::stdin().lock())
            } else if let Some(file) =
                open(Path::new(argument)).map_err(|why| format!("{argument}: {why}"))?
            {
                Box::new(file)
            } else {
                typed.push(argument.as_str());
                continue;
            };
            let name = if argument == "-" { "standard input" } else { argument };
            let evidence =
                Evidence::read(name, file, &mut left).map_err(|error| format!("{name}: {error}"))?;
            input.files.push(evidence);
        }
        input.typed = typed.join(" ");
        Ok(input)
    }
}

/// Opens a file or a pipe; `None` if there is nothing of this name.
fn open(path: &Path) -> Result<Option<File>, String> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        // Nobody describes a fault by a path alone.
        Err(error) if is_only_a_path(path) => return Err(error.to_string()),
        Err(_) => return Ok(None),
    };
    let readable = |kind: FileType| kind.is_file() || kind.is_fifo();
    match metadata.file_type() {
        // `find eth0` in /sys/class/net is about the word.
        kind if kind.is_dir() && path.components().count() == 1 => Ok(None),
        kind if !readable(kind) => Err("it is neither a file nor a pipe".to_owned()),
        _ => File::open(path).map(Some).map_err(|error| error.to_string()),
    }
}

fn is_only_a_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["/", "./", "../"].iter().any(|start| text.starts_with(start)) && !text.contains(char::is_whitespace)
}

impl Evidence {
    /// Reads a file, up to `left` bytes, which it lowers. The rest of a very long line is
    /// left out.
    fn read(name: &str, file: impl Read, left: &mut u64) -> io::Result<Self> {
        let mut file = BufReader::new(file.take(*left));
        let (mut evidence, mut known, hasher) = (Self::named(name), HashSet::new(), RandomState::new());
        let (mut line, mut kept) = (vec![], 0);
        loop {
            line.clear();
            let mut length = file.by_ref().take(limits::TEXT as u64).read_until(b'\n', &mut line)?;
            if length == 0 {
                evidence.cut = *left == 0;
                return Ok(evidence);
            }
            if line.last() != Some(&b'\n') {
                length += file.skip_until(b'\n')?;
            }
            *left -= (length as u64).min(*left);
            let text = String::from_utf8_lossy(line.trim_ascii());
            let letters: String = text.chars().filter(|letter| letter.is_alphabetic()).collect();
            if text.is_empty() || !known.insert(hasher.hash_one(letters)) {
                continue;
            }
            kept += text.len();
            if kept > KEPT || evidence.lines.len() == LINES {
                evidence.cut = true;
                return Ok(evidence);
            }
            evidence.lines.push(text.into_owned());
        }
    }

    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), lines: vec![], cut: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(file: impl Read) -> Evidence {
        let mut left = BYTES;
        Evidence::read("x", file, &mut left).unwrap()
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_read() {
        let text = format!("{}\nnext\n\n\u{fffd}", "x".repeat(3 * limits::TEXT));
        let lines = read(text.as_bytes()).lines;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [limits::TEXT, 4, 3]);
    }

    #[test]
    fn lines_that_differ_in_numbers_are_kept_once() {
        let evidence = read(&b"[1.0] veth1: up\n[2.0] veth2: up\n[3.0] veth1: down\n"[..]);
        assert_eq!(evidence.lines, ["[1.0] veth1: up", "[3.0] veth1: down"]);
        assert!(!evidence.cut);
    }

    #[test]
    fn only_so_much_is_read_and_kept() {
        let mut left = 100_000;
        let evidence = Evidence::read("x", io::repeat(b'x'), &mut left).unwrap();
        assert_eq!((evidence.lines.len(), evidence.cut, left), (1, true, 0));
        let letters = |number: usize| (b'a' + u8::try_from(number % 26).unwrap()) as char;
        let word = |number: usize| {
            [letters(number), letters(number / 26), letters(number / 676), letters(number / 17576)]
        };
        let many: String =
            (0..LINES + 10).flat_map(|number| word(number).into_iter().chain(['\n'])).collect();
        let evidence = read(many.as_bytes());
        assert_eq!((evidence.lines.len(), evidence.cut), (LINES, true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut left = BYTES;
            let evidence = Evidence::read("x", &bytes[..], &mut left).unwrap();
            prop_assert_eq!(BYTES - left, bytes.len() as u64);
            prop_assert!(evidence.lines.iter().all(|line| !line.is_empty() && !line.contains('\n')));
        }
    }
}
