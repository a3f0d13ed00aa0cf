//! Untrusted names of files: in packages, in module directories, in the store.
//!
//! A path is checked here, and rebuilt from its checked names. A
//! [`Directory`](super::directory::Directory) accepts only such paths.

use std::fmt;

use super::limits::Size;

/// A quarter of Linux's PATH_MAX, which leaves room for the path of the store.
const PATH_MAX: usize = 1024;
/// include/uapi/linux/limits.h: NAME_MAX.
const NAME_MAX: usize = 255;
/// The maximum number of names in a path. Modules are at most 10 directories deep.
const DEPTH_MAX: usize = 32;
/// include/uapi/linux/utsname.h: __NEW_UTS_LEN, what `uname -r` can print.
const RELEASE_MAX: usize = 64;
/// The maximum number of bytes of an invalid name that are shown.
const SHOWN_MAX: usize = 100;

/// A relative path of plain names: no `..`, no empty names, printable ASCII only.
/// Made by [`BeneathPath::parse`], from another one, or from a constant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BeneathPath(String);

impl BeneathPath {
    /// Checks a path. Like the kernel, it ignores empty names and `.`: `./a//b` and
    /// `/a/b` are `a/b`.
    ///
    /// # Errors
    /// A clause that says what is wrong with it.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, String> {
        let names: Vec<&[u8]> =
            raw.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        if names.is_empty() {
            return Err("names nothing".into());
        }
        if names.contains(&&b".."[..]) {
            return Err("leads out of its directory".into());
        }
        if names.len() > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX} directories"));
        }
        if names.iter().any(|name| name.len() > NAME_MAX) {
            return Err(format!("has a name longer than {}", Size(NAME_MAX as u64)));
        }
        let path = names.join(&b'/');
        if path.len() > PATH_MAX {
            return Err(format!("is longer than {}", Size(PATH_MAX as u64)));
        }
        // sha256sum(1) escapes backslashes.
        match String::from_utf8(path) {
            Ok(path) if path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\') => {
                Ok(Self(path))
            }
            _ => Err("has characters other than printable ASCII".into()),
        }
    }

    /// A path that is hard-coded in this program.
    pub(super) fn known(path: &'static str) -> Self {
        Self::parse(path.as_bytes()).expect("the program's own names are plain")
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names: those of directories, then the file's.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.split('/').collect()
    }

    /// The path without its first `count` names; `None` if no name is left.
    pub(super) fn without_first(&self, count: usize) -> Option<Self> {
        let left: Vec<_> = self.0.split('/').skip(count).collect();
        (!left.is_empty()).then(|| Self(left.join("/")))
    }

    /// The path below a directory that this program named.
    pub(super) fn under(&self, directory: &'static str) -> Self {
        Self(format!("{}/{}", Self::known(directory).0, self.0))
    }
}

impl fmt::Display for BeneathPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this can be a kernel's release: a digit, then letters, digits and `+-._~`.
pub(super) fn is_release(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= RELEASE_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._~".contains(c))
}

/// Whether a module can have this name, with `-` replaced by `_`: scripts/Makefile.lib,
/// name-fix. Some names contain a dot, as the parts that they are named after do.
pub(super) fn is_module_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.+,".contains(c))
}

/// Whether a text is a single line that displays as written: no control characters,
/// no invisible ones, and none that change the text direction.
pub(super) fn is_one_line(text: &str) -> bool {
    // Rejects the characters that Debug escapes, except quotes and backslash.
    let text: String = text.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    text.escape_debug().eq(text.chars())
}

/// An invalid name, quoted and shortened for an error message.
pub(super) fn quoted(raw: &[u8]) -> String {
    let raw = &raw[..raw.len().min(SHOWN_MAX * 4)];
    let text: String = String::from_utf8_lossy(raw).chars().take(SHOWN_MAX).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_rebuilt_from_its_names() {
        for (raw, path) in [
            ("./usr/lib/modules", "usr/lib/modules"),
            ("/a/b", "a/b"),
            ("a//somewhere/b", "a/somewhere/b"),
            (".//./a/./", "a"),
            ("...", "..."),
            ("a..b/.hidden", "a..b/.hidden"),
        ] {
            assert_eq!(BeneathPath::parse(raw.as_bytes()).unwrap().as_str(), path);
        }
    }

    #[test]
    fn what_is_no_plain_path_says_why() {
        let deep = "a/".repeat(33);
        let long = "a".repeat(256);
        let (many, bidi) = (vec!["a".repeat(200); 6].join("/"), "a\u{202e}b");
        for (raw, why) in [
            ("", "names nothing"),
            ("/./", "names nothing"),
            ("../a", "leads out"),
            ("a/../b", "leads out"),
            ("a/..", "leads out"),
            ("a\nb", "printable ASCII"),
            ("a\x1b[2Jb", "printable ASCII"),
            ("a\0b", "printable ASCII"),
            ("a\\b", "printable ASCII"),
            ("a\x7f", "printable ASCII"),
            (bidi, "printable ASCII"),
            (&deep, "deeper than 32"),
            (&long, "longer than 255"),
            (&many, "longer than 1 KiB"),
        ] {
            let error = BeneathPath::parse(raw.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{raw:?}: {error}");
        }
        assert!(BeneathPath::parse(b"a\xff").is_err());
    }

    #[test]
    fn releases_and_modules_have_plain_names() {
        for text in ["6.1.0-50-cloud-amd64", "6.12.57+deb13~rc1", "7.2_x"] {
            assert!(is_release(text), "{text}");
        }
        let long = format!("6.{}", "1".repeat(63));
        for text in ["", "linux", "6.1\n", "6.1\x1b[2J", "6.1/..", "6.1 x", "6.1:x", "6.1\u{202e}", &long] {
            assert!(!is_release(text), "{text:?}");
        }
        assert!(is_module_name("8021q") && is_module_name("nf_tables"));
        for text in ["", "a/b", "a\nb", "a b", "\u{202e}a"] {
            assert!(!is_module_name(text), "{text:?}");
        }
    }

    #[test]
    fn a_line_shows_what_it_is() {
        assert!(is_one_line("6.1.170-3 \"Grüße\" 'a\\b' u\u{308}"));
        for text in
            ["a\nb", "a\tb", "\x1b[31m", "\u{9b}31m", "a\u{202e}b", "a\u{2066}b", "a\u{200b}b", "\u{2028}"]
        {
            assert!(!is_one_line(text), "{text:?}");
        }
        assert_eq!(quoted(b"a\nb\xff"), "\"a\\nb\u{fffd}\"");
        assert!(quoted(&vec![b'a'; 100_000]).len() < 200);
    }

    proptest! {
        #[test]
        fn a_parsed_path_stays_beneath(
            raw in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "(/|//|\\./|\\.\\./|[a-z]{1,3}|\\.|\\.\\.|\\n|\u{202e}|\x1b|\\\\){0,12}".prop_map(String::into_bytes),
            ]
        ) {
            if let Ok(path) = BeneathPath::parse(&raw) {
                let text = path.as_str();
                prop_assert!(Path::new(text).components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert_eq!(Path::new(text).components().count(), path.names().len());
                prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert_eq!(BeneathPath::parse(text.as_bytes()).unwrap(), path.clone());
                let shorter = path.without_first(1);
                prop_assert_eq!(shorter.is_none(), path.names().len() == 1);
                if let Some(shorter) = shorter {
                    prop_assert!(BeneathPath::parse(shorter.as_str().as_bytes()).is_ok());
                }
            }
        }
    }
}
