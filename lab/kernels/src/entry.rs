//! The metadata of a kernel in the store: entry.json.

use serde::{Deserialize, Serialize};

use super::beneath::{is_one_line, is_release, quoted};
use super::limits::{ENTRY_MAX, Size};
use super::sums::is_sha256;

/// The metadata of a kernel in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the store: `debian:bookworm`, or the release.
    pub id: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// The version of the distribution's package; `None` unless it came from a suite.
    pub version: Option<String>,
    /// What it was added from: a suite, or the names of files.
    pub source: Vec<String>,
    /// How many modules it has.
    pub modules: usize,
    /// The SHA-256 of the file SHA256SUMS.
    pub sums: String,
}

impl Entry {
    /// Parses the entry.json of the entry `id`. It is untrusted: a field with control
    /// characters or an invalid release is an error.
    ///
    /// # Errors
    /// A clause: which field is invalid.
    pub(super) fn parse(id: &str, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > ENTRY_MAX {
            return Err(format!("is larger than {}", Size(ENTRY_MAX)));
        }
        let entry: Self = serde_json::from_slice(bytes)
            .map_err(|e| format!("is damaged: {}", quoted(e.to_string().as_bytes())))?;
        let wrong =
            |field: &str, value: &str| Err(format!("has no good {field}: {}", quoted(value.as_bytes())));
        if entry.id != id {
            return wrong("id", &entry.id);
        }
        if !is_release(&entry.release) {
            return wrong("release", &entry.release);
        }
        if let Some(version) = entry.version.as_ref().filter(|version| !is_one_line(version)) {
            return wrong("version", version);
        }
        if let Some(source) = entry.source.iter().find(|source| !is_one_line(source)) {
            return wrong("source", source);
        }
        if !is_sha256(&entry.sums) {
            return wrong("checksum", &entry.sums);
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: "6.1.0".into(),
            release: "6.1.0".into(),
            version: Some("6.1.170-3".into()),
            source: vec!["Gr\u{fc}\u{df}e \"6.1\".deb".into()],
            modules: 1,
            sums: "0".repeat(64),
        }
    }

    fn parse(entry: &Entry) -> Result<Entry, String> {
        Entry::parse("6.1.0", &serde_json::to_vec(entry).unwrap())
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        assert_eq!(parse(&entry()).unwrap(), entry());
    }

    #[test]
    fn a_field_that_no_kernel_has_is_refused() {
        for bad in ["\x1b[2J", "6.1\n", "6.1.0\u{202e}", "6.1.0\u{9b}31m", "6.1.0\u{2066}", "6.1.0\u{200b}"] {
            for (field, entry) in [
                ("id", Entry { id: bad.into(), ..entry() }),
                ("release", Entry { release: bad.into(), ..entry() }),
                ("version", Entry { version: Some(bad.into()), ..entry() }),
                ("source", Entry { source: vec!["a".into(), bad.into()], ..entry() }),
                ("checksum", Entry { sums: bad.into(), ..entry() }),
            ] {
                let error = parse(&entry).unwrap_err();
                assert!(error.starts_with(&format!("has no good {field}: ")), "{error}");
                assert!(!error.contains(|c: char| c.is_control() || c == '\u{202e}'), "{error:?}");
            }
        }
        for release in ["", "linux", "6.1/x", "6 1", &format!("6.{}", "1".repeat(63))] {
            let error = parse(&Entry { release: release.into(), ..entry() }).unwrap_err();
            assert!(error.starts_with("has no good release"), "{error}");
        }
        assert!(
            parse(&Entry { source: vec!["x".repeat(1 << 17)], ..entry() }).unwrap_err().contains("64 KiB")
        );
        let error = Entry::parse("6.1.0", br#"{"id": ["\u001b[2J"]}"#).unwrap_err();
        assert!(error.starts_with("is damaged: ") && !error.contains('\x1b'), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_one_line(release: String, version: String, source: String) {
            let text = serde_json::json!({
                "id": "6.1.0", "release": release, "version": version, "source": [source],
                "modules": 1, "sums": "0".repeat(64),
            });
            match Entry::parse("6.1.0", text.to_string().as_bytes()) {
                Ok(entry) => {
                    let shown = [entry.release, entry.version.unwrap_or_default(), entry.source.concat()].concat();
                    proptest::prop_assert!(!shown.contains(char::is_control));
                }
                Err(why) => proptest::prop_assert!(!why.contains(char::is_control)),
            }
        }
    }
}
