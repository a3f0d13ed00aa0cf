//! Copies files of this machine into a guest, at their own paths.
//!
//! Symbolic links in a path are copied too, so that a file has the same names in the
//! guest as here.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::initramfs::{Initramfs, LINKS_MAX, names};
use faultlab_base::error::{Error, Result};

/// Directories that are never copied: the guest's kernel provides them.
const OF_THE_GUEST: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The maximum number of files in a directory that is copied.
const FILES_MAX: usize = 100_000;
/// The maximum depth of nested directories.
const DEPTH_MAX: usize = 64;
/// The maximum size of all files of a guest, in bytes.
const TOTAL_SIZE_MAX: u64 = 1 << 30;

/// A file of this machine that was added.
#[derive(Debug)]
pub(super) struct HostFile {
    /// Its canonical path.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Initramfs {
    /// Adds a regular file of this machine, and the links that lead to it.
    ///
    /// # Errors
    /// If it cannot be read, or is not a regular file.
    pub(super) fn host_file(&mut self, path: &Path) -> Result<HostFile> {
        let (path, found) = self.host_path(path)?;
        self.regular_file(path, &found)
    }

    /// Adds a directory of this machine with everything below it, or a file, and
    /// the links that lead to it; returns the files. Links below it are followed
    /// only to files. Sockets, FIFOs and devices are left out.
    ///
    /// # Errors
    /// If one of them cannot be read, or a limit is exceeded.
    pub(super) fn host_tree(&mut self, path: &Path) -> Result<Vec<HostFile>> {
        let (path, found) = self.host_path(path)?;
        if !found.is_dir() {
            return Ok(vec![self.regular_file(path, &found)?]);
        }
        let mut files = vec![];
        let mut left = vec![(path.clone(), 0)];
        while let Some((directory, depth)) = left.pop() {
            if depth > DEPTH_MAX {
                return Err(wrong(&path, &format!("it is nested deeper than {DEPTH_MAX} directories")));
            }
            self.directory(&text(&directory)?, 0o755);
            let read = |e| Error::kernel(directory.display().to_string(), "read the directory", e);
            for entry in fs::read_dir(&directory).map_err(read)? {
                let entry = entry.map_err(read)?.path();
                let Ok(found) = fs::symlink_metadata(&entry) else { continue };
                if found.is_dir() {
                    left.push((entry, depth + 1));
                } else if found.is_file() {
                    files.push(self.regular_file(entry, &found)?);
                } else if found.is_symlink() {
                    // A dangling link is dangling in the guest too.
                    match self.host_path(&entry) {
                        Ok((target, found)) if found.is_file() => {
                            files.push(self.regular_file(target, &found)?);
                        }
                        _ => {}
                    }
                }
                if files.len() > FILES_MAX {
                    return Err(wrong(&path, &format!("it has more than {FILES_MAX} files")));
                }
            }
        }
        Ok(files)
    }

    /// Resolves a path of this machine, adds the symbolic links in it, and returns the
    /// canonical path.
    ///
    /// # Errors
    /// If the path does not exist, has too many links (ELOOP), or is below one of
    /// [`OF_THE_GUEST`].
    pub(super) fn host_path(&mut self, path: &Path) -> Result<(PathBuf, Metadata)> {
        let mut left = names(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        let failed = |e| Error::kernel(path.display().to_string(), "find it", e);
        while let Some(name) = left.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            if OF_THE_GUEST.iter().any(|own| next.starts_with(own)) {
                let why = format!("{} is the guest's own", next.display());
                return Err(wrong(path, &format!("it cannot be brought into a guest: {why}")));
            }
            if !fs::symlink_metadata(&next).map_err(failed)?.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(failed(std::io::Error::from_raw_os_error(libc::ELOOP)));
            }
            let target = fs::read_link(&next).map_err(failed)?;
            self.link(&text(&next)?, &text(&target)?);
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            left.extend(names(&target));
        }
        let found = fs::symlink_metadata(&at).map_err(failed)?;
        Ok((at, found))
    }

    fn regular_file(&mut self, path: PathBuf, found: &Metadata) -> Result<HostFile> {
        if !found.is_file() {
            return Err(wrong(&path, "it is neither a regular file nor a directory"));
        }
        if found.len() + self.size() > TOTAL_SIZE_MAX {
            return Err(wrong(
                &path,
                &format!("the guest's files are larger than {} MiB", TOTAL_SIZE_MAX >> 20),
            ));
        }
        let read = |e| Error::kernel(path.display().to_string(), "read it", e);
        let bytes = fs::read(&path).map_err(read)?;
        let modified = u32::try_from(found.mtime()).unwrap_or(0);
        let name = text(&path)?;
        if !self.has(&name) {
            self.file_of(&name, found.permissions().mode() & 0o7777, modified, bytes.clone());
        }
        Ok(HostFile { path, bytes })
    }
}

/// A path as text; only UTF-8 is supported in an archive.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| wrong(path, "its name is not UTF-8; rename it"))
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::Lab(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_keeps_its_path_and_the_links_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/file 1"), "x").unwrap();
        symlink("real", at("first")).unwrap();
        symlink(at("first/file 1"), at("second")).unwrap();
        let mut root = Initramfs::new();
        let file = root.host_file(&at("real/../second")).unwrap();
        assert_eq!((file.path, file.bytes), (at("real/file 1").canonicalize().unwrap(), b"x".to_vec()));
        for name in ["first", "second", "real/file 1"] {
            assert!(root.has(at(name).to_str().unwrap()), "{name}");
        }
    }

    #[test]
    fn links_that_lead_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink(at("b"), at("a")).unwrap();
        symlink(at("a"), at("b")).unwrap();
        symlink(dir.path(), at("up")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        fs::write(at("file"), "x").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut root = Initramfs::new();
        let error = root.host_file(&at("a")).unwrap_err().to_string();
        assert!(error.contains("symbolic links"), "{error}");
        let files = Initramfs::new().host_tree(dir.path()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.file_name().unwrap()).collect();
        assert_eq!(names, ["file"]);
        let error = root.host_file(&at("fifo")).unwrap_err().to_string();
        assert!(error.ends_with("it is neither a regular file nor a directory"), "{error}");
        let error = root.host_file(Path::new("/proc/self/maps")).unwrap_err().to_string();
        assert!(error.ends_with("/proc is the guest's own"), "{error}");
    }
}
