//! Filters the output of another program for a terminal.
//!
//! Reading: ECMA-48 8.3.117, SGR; 5.4, control sequences.

use crate::text;

/// An incomplete colour sequence of this length, in bytes, is escaped instead of
/// waiting for its end. `ESC [ 38;2;255;255;255;48;2;255;255;255 m` is shorter.
const SEQUENCE_MAX: usize = 64;

/// Standard output or standard error, to which the output of another program is passed
/// on piece by piece.
#[derive(Debug, Default)]
pub struct PassedOn {
    error: bool,
    /// An incomplete character or control sequence, which the next piece continues.
    begun: Vec<u8>,
}

impl PassedOn {
    /// Standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::default()
    }

    /// Standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self { error: true, ..Self::default() }
    }

    /// Whether this is standard error.
    pub(super) fn is_error(&self) -> bool {
        self.error
    }

    /// Cleans the next piece: text, line feeds, carriage returns, tabs and colours (SGR)
    /// stay; everything else is shown in Rust's escape syntax.
    pub(super) fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend(bytes);
        let begun = std::mem::take(&mut self.begun);
        let mut rest = begun.as_slice();
        let mut shown = String::new();
        while let Some(first) = rest.first() {
            let length = match first {
                0x1b => match colour(rest) {
                    Sequence::Colour(length) => {
                        shown.push_str(&String::from_utf8_lossy(&rest[..length]));
                        rest = &rest[length..];
                        continue;
                    }
                    Sequence::Unfinished => break,
                    Sequence::Other => 1,
                },
                _ => match character(rest) {
                    Some(length) => length,
                    None => break,
                },
            };
            let letter = String::from_utf8_lossy(&rest[..length]);
            match &*letter {
                "\n" | "\t" | "\r" => shown.push_str(&letter),
                letter => shown.push_str(&text::line(letter)),
            }
            rest = &rest[length..];
        }
        rest.clone_into(&mut self.begun);
        shown.into_bytes()
    }
}

enum Sequence {
    /// A complete SGR sequence of this length, in bytes.
    Colour(usize),
    /// More bytes are needed.
    Unfinished,
    /// Not an SGR sequence.
    Other,
}

/// The kind of sequence that starts with the ESC at the first byte.
fn colour(bytes: &[u8]) -> Sequence {
    if bytes.get(1).is_some_and(|byte| *byte != b'[') {
        return Sequence::Other;
    }
    let end = bytes.iter().skip(2).position(|byte| !(byte.is_ascii_digit() || b";:".contains(byte)));
    match end {
        Some(end) if bytes[end + 2] == b'm' => Sequence::Colour(end + 3),
        None if bytes.len() < SEQUENCE_MAX => Sequence::Unfinished,
        _ => Sequence::Other,
    }
}

/// The length in bytes of the first character, or of the first invalid UTF-8 sequence;
/// `None` if more bytes are needed.
fn character(bytes: &[u8]) -> Option<usize> {
    let start = &bytes[..bytes.len().min(4)];
    match str::from_utf8(start) {
        Ok(text) => text.chars().next().map(char::len_utf8),
        Err(error) if error.valid_up_to() > 0 => {
            let text = str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default();
            text.chars().next().map(char::len_utf8)
        }
        Err(error) => error.error_len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(pieces: &[&[u8]]) -> String {
        let mut output = PassedOn::stdout();
        pieces.iter().map(|piece| String::from_utf8(output.clean(piece)).unwrap()).collect()
    }

    #[test]
    fn text_and_colours_stay_and_nothing_else() {
        for (from, to) in [
            ("a\tb\r\n\u{fc}", "a\tb\r\n\u{fc}"),
            ("\x1b[1;31mred\x1b[0m\x1b[m", "\x1b[1;31mred\x1b[0m\x1b[m"),
            ("\x1b[2J\x1b]0;title\x07\x1bc", "\\x1b[2J\\x1b]0;title\\x07\\x1bc"),
            ("\u{9b}31m\u{202e}\0", "\\u{9b}31m\\u{202e}\\x00"),
        ] {
            assert_eq!(clean(&[from.as_bytes()]), to);
        }
        assert_eq!(clean(&[b"\xff\x9b"]), "\u{fffd}\u{fffd}");
        assert_eq!(clean(&[b"\x1b", b"[3", b"1mx"]), "\x1b[31mx");
        assert_eq!(clean(&[b"\xc3", b"\xbc"]), "\u{fc}");
    }

    proptest! {
        #[test]
        fn pieces_are_shown_as_the_whole(bytes: Vec<u8>, at in 0usize..40) {
            let (one, two) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(clean(&[one, two]), clean(&[&bytes]));
        }
    }
}
