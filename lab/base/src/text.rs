//! Text from outside: guests, packages, files and command lines.
//!
//! Untrusted text could contain control characters for the terminal, forged lines of
//! this program, and bidirectional controls that hide what an editor shows. So text is
//! cleaned on input, which makes it a [`Cell`], a [`Line`] or [`Lines`], and again on
//! output. Every character that is not [plain](is_plain), including tabs, joiners and
//! combining marks, is replaced by Rust's escape syntax: `\x1b`, `\u{202e}`.
//!
//! Reading: ECMA-48 5.3, the C1 set; Unicode Standard Annex 9, "Explicit
//! Directional Formatting Characters"; Unicode Technical Report 36, 2.10.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_width::UnicodeWidthChar;

use crate::limits;

/// Ends a text that was cut.
const CUT: &str = "... (cut)";

/// The SGR sequences that this program writes: bold, dim, red, green, yellow, reset.
const COLOURS: [&str; 6] = ["\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"];

/// Whether a character is displayed as itself and occupies a cell.
///
/// Control characters, bidirectional controls, joiners, combining marks and tags have no
/// width. The list adds characters that are invisible or end a line, some of which have
/// a width.
#[must_use]
pub fn is_plain(letter: char) -> bool {
    let invisible = matches!(
        letter,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    !invisible && letter.width().is_some_and(|width| width > 0)
}

/// Cleans text into one line: only plain characters, at most [`limits::TEXT`]
/// bytes.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    cut(cleaned(text, |_| false), limits::TEXT)
}

/// Cleans a name or a table cell: one line, at most [`limits::CELL`] bytes.
#[must_use]
pub fn cell(text: &str) -> Cow<'_, str> {
    cut(cleaned(text, |_| false), limits::CELL)
}

/// Like [`line()`], but keeps line feeds.
///
/// The caller indents every line but the first, as
/// [`terminal::say`](crate::terminal::say) does, so that none looks like a line of this
/// program.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    cut(cleaned(text, |letter| letter == '\n'), limits::TEXT)
}

/// A text type whose values are always clean: [`From`] and `Deserialize` clean them.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $clean:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match $clean(&text) {
                    Cow::Owned(cleaned) => Self(cleaned),
                    Cow::Borrowed(_) => Self(text),
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self($clean(text).into_owned())
            }
        }

        impl From<&String> for $name {
            fn from(text: &String) -> Self {
                text.as_str().into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<$name> for str {
            fn eq(&self, other: &$name) -> bool {
                *self == other.0
            }
        }

        impl PartialEq<$name> for &str {
            fn eq(&self, other: &$name) -> bool {
                **self == other.0
            }
        }

        impl PartialEq<$name> for String {
            fn eq(&self, other: &$name) -> bool {
                *self == other.0
            }
        }
    };
}

text_type! {
    /// A name or a table cell, cleaned by [`cell`].
    Cell, cell
}

text_type! {
    /// One line, cleaned by [`line()`].
    Line, line
}

text_type! {
    /// Text of several lines, cleaned by [`lines`].
    Lines, lines
}

/// Cleans text for the terminal: keeps line feeds and this program's colours.
#[must_use]
pub fn page(text: &str) -> Cow<'_, str> {
    if !text.contains('\x1b') {
        return cleaned(text, |letter| letter == '\n');
    }
    let mut page = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let (before, escape) = rest.split_at(at);
        page.push_str(&cleaned(before, |letter| letter == '\n'));
        if let Some(colour) = COLOURS.iter().find(|colour| escape.starts_with(**colour)) {
            page.push_str(colour);
            rest = &escape[colour.len()..];
        } else {
            show('\x1b', &mut page);
            rest = &escape[1..];
        }
    }
    page.push_str(&cleaned(rest, |letter| letter == '\n'));
    page.into()
}

/// A value as one line of JSON. Characters that are not plain become JSON escapes
/// (`\u001b`), so a terminal gets no control character, and a parser the same value.
#[must_use]
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("it is plain data");
    if text.chars().all(is_plain) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_plain(letter) {
            escaped.push(letter);
        } else {
            // In compact JSON only strings contain such characters.
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

fn cleaned(text: &str, also: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(|letter| is_plain(letter) || also(letter)) {
        return text.into();
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_plain(letter) || also(letter) {
            cleaned.push(letter);
        } else {
            show(letter, &mut cleaned);
        }
    }
    cleaned.into()
}

fn show(letter: char, text: &mut String) {
    let _ = match letter {
        '\n' => text.write_str("\\n"),
        '\r' => text.write_str("\\r"),
        '\t' => text.write_str("\\t"),
        '\0'..='\x7f' => write!(text, "\\x{:02x}", u32::from(letter)),
        _ => write!(text, "\\u{{{:x}}}", u32::from(letter)),
    };
}

fn cut(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text;
    }
    let mut end = most - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that a terminal obeys or hides, with letters around them.
    fn hostile() -> impl Strategy<Value = String> {
        let letter = prop_oneof![
            any::<char>(),
            (0..=0xff_u32).prop_map(|n| char::from_u32(n).unwrap()),
            (0x2000..=0x20ff_u32).prop_map(|n| char::from_u32(n).unwrap()),
            prop::sample::select(vec!['\x1b', '[', ']', 'm', '0', '\n', '\r', '\u{feff}', '\u{e0041}']),
        ];
        prop::collection::vec(letter, 0..80).prop_map(|letters| letters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_line_has_only_plain_characters_and_is_clean(text in hostile()) {
            let once = line(&text).into_owned();
            prop_assert!(once.chars().all(is_plain), "{once:?}");
            prop_assert!(!once.contains(char::is_control));
            prop_assert_eq!(line(&once), once.as_str());
        }

        #[test]
        fn lines_have_line_feeds_and_no_other_control_character(text in hostile()) {
            let once = lines(&text).into_owned();
            prop_assert!(once.chars().all(|letter| letter == '\n' || is_plain(letter)), "{once:?}");
            prop_assert_eq!(once.lines().count(), text.lines().count());
            prop_assert_eq!(lines(&once), once.as_str());
        }

        #[test]
        fn text_without_control_characters_stays(text in "[ -~äéßжЖ中文│─✓…]{0,200}") {
            prop_assert!(matches!(line(&text), Cow::Borrowed(_)));
            prop_assert_eq!(page(&text), text.as_str());
        }

        #[test]
        fn a_page_has_no_escape_sequence_but_colours(text in hostile()) {
            let mut page = page(&text).into_owned();
            for colour in COLOURS {
                page = page.replace(colour, "");
            }
            prop_assert!(page.chars().all(|letter| letter == '\n' || is_plain(letter)), "{page:?}");
        }

        #[test]
        fn json_is_plain_and_keeps_the_value(text in hostile()) {
            let json = json(&text);
            prop_assert!(json.chars().all(is_plain), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn long_text_is_cut_once(text in ".{0,40}", times in 1..2000_usize) {
            let once = line(&text.repeat(times)).into_owned();
            prop_assert!(once.len() <= limits::TEXT);
            prop_assert_eq!(line(&once), once.as_str());
            let short = cell(&once).into_owned();
            prop_assert!(short.len() <= limits::CELL);
            prop_assert_eq!(cell(&short), short.as_str());
        }
    }

    #[test]
    fn what_is_taken_out_is_shown() {
        for (hostile, shown) in [
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\nfaultlab: b\r\tc", "a\\nfaultlab: b\\r\\tc"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}moc\u{2066}", "\\u{202e}moc\\u{2066}"),
            ("a\u{200b}b\u{ad}c\u{2028}", "a\\u{200b}b\\u{ad}c\\u{2028}"),
            ("\x7f", "\\x7f"),
        ] {
            assert_eq!(line(hostile), shown);
        }
        // A single byte from the C1 set is not UTF-8.
        assert_eq!(line(&String::from_utf8_lossy(b"\x9b31m")), "\u{fffd}31m");
    }

    #[test]
    fn a_text_is_clean_however_it_is_made() {
        let hostile = "a\nfaultlab: \x1b[2J";
        let json = serde_json::to_string(hostile).unwrap();
        for text in [hostile.into(), hostile.to_owned().into(), serde_json::from_str(&json).unwrap()] {
            let text: Line = text;
            assert_eq!(text, "a\\nfaultlab: \\x1b[2J");
        }
        assert_eq!(serde_json::from_str::<Lines>(&json).unwrap(), "a\nfaultlab: \\x1b[2J");
        assert_eq!(Cell::from("x".repeat(5000)).len(), limits::CELL);
    }

    #[test]
    fn snapshots_need_no_cleaning() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../snapshots");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(matches!(lines(&text), Cow::Borrowed(_)));
            count += 1;
        }
        assert!(count > 10);
    }
}
