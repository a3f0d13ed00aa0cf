//! The checksums of an entry's files, in the format of sha256sum(1).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use faultlab_base::error::{Error, Result};

/// SHA-256 by path, relative to the entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sums(BTreeMap<PathBuf, String>);

impl Sums {
    /// Sums up every file under `dir`.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let mut sums = BTreeMap::new();
        let mut open = vec![dir.to_owned()];
        while let Some(next) = open.pop() {
            for file in fs::read_dir(&next)? {
                let path = file?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(dir).unwrap_or(&path).to_owned();
                    sums.insert(name, sha256_file(&path)?);
                }
            }
        }
        Ok(Self(sums))
    }

    /// Reads what [`Sums::to_text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| line.split_once("  ").map(|(sum, path)| (path.into(), sum.to_owned()));
        Self(text.lines().filter_map(line).collect())
    }

    /// One line a file, sorted.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |(path, sum): (&PathBuf, &String)| format!("{sum}  {}", path.display());
        let lines: Vec<_> = self.0.iter().map(line).chain([String::new()]).collect();
        lines.join("\n")
    }

    /// How many files there are under `dir`.
    #[must_use]
    pub fn count(&self, dir: &str) -> usize {
        self.0.keys().filter(|path| path.starts_with(dir)).count()
    }

    /// Checks bytes that were read from the file `name` of the entry.
    ///
    /// # Errors
    /// Where they are not those that were added.
    pub fn check(&self, entry: &Path, name: &Path, bytes: &[u8]) -> Result<()> {
        self.compare(entry, name, &sha256(bytes))
    }

    /// Checks the file `name` of the entry.
    ///
    /// # Errors
    /// Where it cannot be read or is not what was added.
    pub fn check_file(&self, entry: &Path, name: &str) -> Result<()> {
        let path = entry.join(name);
        let sum = sha256_file(&path)
            .map_err(|e| Error::kernel("kernel store", format!("read {}", path.display()), e))?;
        self.compare(entry, Path::new(name), &sum)
    }

    /// Whether every file of the entry is there and what was added.
    #[must_use]
    pub fn hold(&self, entry: &Path) -> bool {
        self.0.iter().all(|(name, sum)| sha256_file(&entry.join(name)).is_ok_and(|there| there == *sum))
    }

    fn compare(&self, entry: &Path, name: &Path, sum: &str) -> Result<()> {
        if self.0.get(name).is_some_and(|wanted| wanted == sum) {
            return Ok(());
        }
        Err(Error::Lab(format!(
            "{} is not what was added; remove the kernel and add it again",
            entry.join(name).display()
        )))
    }
}

/// The SHA-256 of bytes, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
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
    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("modules")).unwrap();
        fs::write(dir.path().join("kernel"), "abc").unwrap();
        fs::write(dir.path().join("modules/veth.ko"), "").unwrap();
        let sums = Sums::of(dir.path()).unwrap();
        assert_eq!(Sums::parse(&sums.to_text()), sums);
        assert_eq!(sums.count("modules"), 1);
        // FIPS 180-2, B.1
        assert!(
            sums.to_text()
                .starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  kernel\n")
        );
        sums.check_file(dir.path(), "kernel").unwrap();
        fs::write(dir.path().join("kernel"), "abd").unwrap();
        assert!(
            sums.check_file(dir.path(), "kernel").unwrap_err().to_string().contains("not what was added")
        );
    }
}
