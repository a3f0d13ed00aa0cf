//! The checksums of an entry's files, in the format of sha256sum(1).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::beneath::{BeneathPath, quoted};
use super::directory::Directory;
use super::limits::{MODULE_MAX, MODULES_MAX, too_large};
use faultlab_base::error::{Error, Result};

/// The number of files besides the modules: the kernel and its configuration.
const OTHERS: usize = 2;

/// The SHA-256 of each file, by its path in the entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<BeneathPath, String>);

impl Sums {
    /// Computes the checksum of every file under `dir`.
    ///
    /// # Errors
    /// If a file cannot be read, or its name does not fit on one line.
    pub(super) fn of(dir: &Directory) -> io::Result<Self> {
        let sum = |path: BeneathPath| Ok((path.clone(), sha256_file(dir.file(&path)?)?));
        let files = dir.files(|_| true, MODULES_MAX + OTHERS)?;
        Ok(Self(files.into_iter().map(sum).collect::<io::Result<_>>()?))
    }

    /// Parses the output of [`Sums::to_text`].
    ///
    /// # Errors
    /// A clause: which line is invalid.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let line = |line: &str| {
            let (sum, path) = line.split_once("  ").filter(|(sum, _)| is_sha256(sum))?;
            Some((BeneathPath::parse(path.as_bytes()).ok()?, sum.to_owned()))
        };
        let sums = text.lines().map(|text| {
            line(text).ok_or_else(|| format!("{} is no checksum and path", quoted(text.as_bytes())))
        });
        Ok(Self(sums.collect::<Result<_, _>>()?))
    }

    /// One line per file, sorted.
    #[must_use]
    pub(super) fn to_text(&self) -> String {
        let line = |(path, sum): (&BeneathPath, &String)| format!("{sum}  {path}");
        let lines: Vec<_> = self.0.iter().map(line).chain([String::new()]).collect();
        lines.join("\n")
    }

    /// Verifies the content of the file `name` of the entry, which was read.
    ///
    /// # Errors
    /// If they have changed since they were added.
    pub(super) fn check(&self, entry: &Path, name: &BeneathPath, bytes: &[u8]) -> Result<()> {
        self.compare(entry, name, &sha256(bytes))
    }

    /// Verifies the file `name` of the entry.
    ///
    /// # Errors
    /// If it cannot be read or has changed since it was added.
    pub(super) fn check_file(&self, entry: &Directory, name: &BeneathPath) -> Result<()> {
        let sum = entry.file(name).and_then(sha256_file).map_err(|e| {
            let path = entry.path().join(name.as_str());
            Error::kernel("kernel store", format!("read {}", path.display()), e)
        })?;
        self.compare(entry.path(), name, &sum)
    }

    /// Whether every file of the entry exists and is unchanged.
    #[must_use]
    pub(super) fn hold(&self, entry: &Directory) -> bool {
        let holds = |(name, sum): (&BeneathPath, &String)| {
            entry.file(name).and_then(sha256_file).is_ok_and(|there| there == *sum)
        };
        self.0.iter().all(holds)
    }

    fn compare(&self, entry: &Path, name: &BeneathPath, sum: &str) -> Result<()> {
        if self.0.get(name).is_some_and(|wanted| wanted == sum) {
            return Ok(());
        }
        Err(Error::Lab(format!(
            "{} is not what was added; remove the kernel and add it again",
            entry.join(name.as_str()).display()
        )))
    }
}

/// The SHA-256 of bytes, in hexadecimal.
#[must_use]
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Whether this has the form of a [`sha256`] result.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The SHA-256 of a file. A file larger than any that is added is an error, so that a
/// sparse file in the store does not take hours.
fn sha256_file(file: File) -> io::Result<String> {
    if file.metadata()?.len() > MODULE_MAX {
        return Err(too_large(MODULE_MAX));
    }
    let mut file = file.take(MODULE_MAX);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("modules")).unwrap();
        fs::write(dir.path().join("kernel"), "abc").unwrap();
        fs::write(dir.path().join("modules/veth.ko"), "").unwrap();
        let opened = Directory::open(dir.path()).unwrap();
        let sums = Sums::of(&opened).unwrap();
        assert_eq!(Sums::parse(&sums.to_text()).unwrap(), sums);
        // FIPS 180-2, B.1
        assert!(
            sums.to_text()
                .starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  kernel\n")
        );
        let kernel = BeneathPath::known("kernel");
        sums.check_file(&opened, &kernel).unwrap();
        assert!(sums.hold(&opened));
        fs::write(dir.path().join("kernel"), "abd").unwrap();
        let error = sums.check_file(&opened, &kernel).unwrap_err().to_string();
        assert!(error.contains("not what was added"), "{error}");
        assert!(!sums.hold(&opened));
        // A hole of 1 TiB is not read.
        File::options().write(true).open(dir.path().join("kernel")).unwrap().set_len(1 << 40).unwrap();
        let error = sums.check_file(&opened, &kernel).unwrap_err().to_string();
        assert!(error.ends_with("it is larger than 512 MiB"), "{error}");
        assert!(!sums.hold(&opened));
    }

    #[test]
    fn a_name_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a\nb.ko"), "").unwrap();
        let error = Sums::of(&Directory::open(dir.path()).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("\"a\\nb.ko\" has characters other than printable ASCII"), "{error}");
    }

    #[test]
    fn a_line_of_somebody_else_is_refused() {
        let sum = "0".repeat(64);
        assert!(Sums::parse(&format!("{sum}  kernel\n{sum}  modules/a b.ko\n")).is_ok());
        for text in [
            format!("{sum}  ../kernel"),
            format!("{sum}  modules/\x1b[2J"),
            format!("{sum} kernel"),
            "abc  kernel".to_owned(),
            "kernel".to_owned(),
        ] {
            let error = Sums::parse(&text).unwrap_err();
            assert!(error.ends_with("is no checksum and path") && !error.contains('\x1b'), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([0-9a-f]{64}  )?[ -~\n/.]{0,80}") {
            if let Ok(sums) = Sums::parse(&text) {
                proptest::prop_assert_eq!(Sums::parse(&sums.to_text()).unwrap(), sums);
            }
        }
    }
}
