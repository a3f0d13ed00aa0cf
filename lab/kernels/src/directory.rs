//! A directory whose files can only be opened by checked names.
//!
//! Each name of a path is opened in its parent directory without following symbolic
//! links, so no path leads out, even if others rename or link files meanwhile. Only
//! regular files are opened: nothing blocks on a FIFO.
//!
//! This is openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, name by
//! name, on kernels before 5.6 too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::beneath::{BeneathPath, quoted};
use super::limits::read_at_most;

/// The maximum depth of a search. A build tree has 15 levels.
const SEARCH_DEPTH: usize = 64;
/// The maximum number of names in a search. A build tree with all its objects has
/// 300,000.
const SEARCH_MAX: usize = 4_000_000;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory by a trusted path: from the user or from this program.
    ///
    /// # Errors
    /// If it cannot be opened, or is no directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The path that it was opened by, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory at `path` in this one.
    ///
    /// # Errors
    /// If it cannot be opened, or any of its names is no directory.
    pub(super) fn directory(&self, path: &BeneathPath) -> io::Result<Self> {
        let names = path.names();
        let fd = self.descend(names.iter().map(OsStr::new), false)?;
        Ok(Self { fd, path: self.path.join(path.as_str()) })
    }

    /// Opens the regular file at `path` for reading.
    ///
    /// # Errors
    /// If it cannot be opened, or is no regular file.
    pub(super) fn file(&self, path: &BeneathPath) -> io::Result<File> {
        let (parent, name) = self.parent(path, false)?;
        // Checked before open(2), which has side effects on some devices.
        check_regular(fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode)?;
        let flags =
            OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let fd = openat(&parent, name, flags, Mode::empty())?;
        check_regular(fstat(&fd)?.st_mode)?;
        Ok(File::from(fd))
    }

    /// Reads the regular file at `path`.
    ///
    /// # Errors
    /// As [`Directory::file`]; or the file is larger than `max` bytes.
    pub(super) fn read(&self, path: &BeneathPath, max: u64) -> io::Result<Vec<u8>> {
        read_at_most(self.file(path)?, max)
    }

    /// Creates a file at `path`, and its parent directories. An existing file is
    /// removed first, never written to.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn create(&self, path: &BeneathPath) -> io::Result<File> {
        let (parent, name) = self.parent(path, true)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&parent, name, flags, Mode::from_bits_truncate(0o644));
        let fd = match create() {
            Err(Errno::EEXIST) => {
                unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                create()?
            }
            created => created?,
        };
        Ok(File::from(fd))
    }

    /// The regular files in this directory and below whose names match `wanted`,
    /// sorted. Symbolic links are not followed.
    ///
    /// # Errors
    /// If a directory cannot be read, a picked file has a name that is no
    /// [`BeneathPath`], or there are more than `max`.
    pub(super) fn files(&self, wanted: impl Fn(&str) -> bool, max: usize) -> io::Result<Vec<BeneathPath>> {
        let mut found = Vec::new();
        let mut left = SEARCH_MAX;
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let fd = self.descend(directory.iter(), false)?;
            // Dir takes ownership of a descriptor, and moves its file position.
            let mut dir = Dir::from_fd(fd)?;
            let entries = dir.iter().collect::<Result<Vec<_>, _>>()?;
            left = left.checked_sub(entries.len()).ok_or_else(|| {
                io::Error::other(format!("there are more than {SEARCH_MAX} files in {}", self.path.display()))
            })?;
            for entry in entries {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let path = directory.join(name);
                let kind = match entry.file_type() {
                    Some(kind) => Some(kind),
                    // DT_UNKNOWN: some file systems do not report the type.
                    None => kind(fstatat(&dir, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode),
                };
                if kind == Some(Type::Directory) && name != "." && name != ".." {
                    if path.iter().count() > SEARCH_DEPTH {
                        let shown = quoted(path.as_os_str().as_bytes());
                        let why = format!("{shown} is nested deeper than {SEARCH_DEPTH} directories");
                        return Err(io::Error::other(why));
                    }
                    directories.push(path);
                } else if kind == Some(Type::File) && wanted(&name.to_string_lossy()) {
                    if found.len() == max {
                        return Err(io::Error::other(format!("there are more than {max} files to take")));
                    }
                    let raw = path.as_os_str().as_bytes();
                    let refused = |why| io::Error::other(format!("{} {why}; rename it", quoted(raw)));
                    found.push(BeneathPath::parse(raw).map_err(refused)?);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The parent directory of the file at `path`, and the file's name.
    fn parent<'a>(&self, path: &'a BeneathPath, make: bool) -> io::Result<(OwnedFd, &'a str)> {
        let mut names = path.names();
        let name = names.pop().expect("a path has a name");
        Ok((self.descend(names.iter().map(OsStr::new), make)?, name))
    }

    /// Opens one directory after the other; creates missing ones if `make` is set.
    /// None of the names may be `..`.
    fn descend<'a>(&self, names: impl Iterator<Item = &'a OsStr>, make: bool) -> io::Result<OwnedFd> {
        let flags =
            OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mut fd = openat(&self.fd, ".", flags, Mode::empty())?;
        for name in names {
            if make {
                match mkdirat(&fd, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            fd = openat(&fd, name, flags, Mode::empty()).map_err(|e| match e {
                Errno::ENOTDIR | Errno::ELOOP => {
                    let name = quoted(name.as_bytes());
                    io::Error::new(
                        io::ErrorKind::NotADirectory,
                        format!("{name} is no directory (links are not followed)"),
                    )
                }
                e => e.into(),
            })?;
        }
        Ok(fd)
    }
}

/// Opens a regular file named by the user for reading. Links are followed, such as
/// /vmlinuz.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub(super) fn regular_file(path: &Path) -> io::Result<File> {
    check_regular(nix::sys::stat::stat(path)?.st_mode)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    check_regular(fstat(&file)?.st_mode)?;
    Ok(file)
}

fn kind(mode: nix::libc::mode_t) -> Option<Type> {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Some(Type::File),
        SFlag::S_IFDIR => Some(Type::Directory),
        _ => None,
    }
}

fn check_regular(mode: nix::libc::mode_t) -> io::Result<()> {
    let what = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no regular file")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> BeneathPath {
        BeneathPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("veth.ko"), "the host's").unwrap();
        symlink(&outside, inside.join("out")).unwrap();
        symlink(outside.join("veth.ko"), inside.join("veth.ko")).unwrap();
        let opened = Directory::open(&inside).unwrap();
        for error in [
            opened.file(&path("out/veth.ko")).unwrap_err(),
            opened.create(&path("out/veth.ko")).unwrap_err(),
            opened.create(&path("out/deep/veth.ko")).unwrap_err(),
            opened.directory(&path("out")).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "\"out\" is no directory (links are not followed)");
        }
        let error = opened.file(&path("veth.ko")).unwrap_err().to_string();
        assert_eq!(error, "it is a symbolic link and no regular file");
        assert!(opened.files(|_| true, 9).unwrap().is_empty());
        // The new file replaces the link.
        opened.create(&path("veth.ko")).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(inside.join("veth.ko")).unwrap(), b"new");
        assert_eq!(fs::read(outside.join("veth.ko")).unwrap(), b"the host's");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        let opened = Directory::open(dir.path()).unwrap();
        for (name, what) in [("fifo", "a FIFO"), ("dir", "a directory"), ("socket", "a socket")] {
            let sentence = format!("it is {what} and no regular file");
            assert_eq!(opened.read(&path(name), 9).unwrap_err().to_string(), sentence);
            assert_eq!(regular_file(&dir.path().join(name)).unwrap_err().to_string(), sentence);
        }
        assert!(opened.files(|_| true, 9).unwrap().is_empty());
        assert!(regular_file(Path::new("/dev/null")).unwrap_err().to_string().contains("a device"));
        assert!(Directory::open(&dir.path().join("fifo")).is_err());
    }

    #[test]
    fn sizes_and_numbers_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "12345").unwrap();
        fs::write(dir.path().join("b\nb"), "").unwrap();
        let opened = Directory::open(dir.path()).unwrap();
        assert_eq!(opened.read(&path("a"), 4).unwrap_err().to_string(), "it is larger than 4 bytes");
        assert_eq!(opened.read(&path("a"), 5).unwrap(), b"12345");
        assert_eq!(opened.files(|name| name == "a", 1).unwrap(), [path("a")]);
        assert!(opened.files(|name| name == "a", 0).unwrap_err().to_string().contains("more than 0 files"));
        let error = opened.files(|_| true, 9).unwrap_err().to_string();
        assert_eq!(error, "\"b\\nb\" has characters other than printable ASCII; rename it");
        let deep: PathBuf = std::iter::repeat_n("d", 70).collect();
        fs::create_dir_all(dir.path().join(deep)).unwrap();
        assert!(opened.files(|_| false, 9).unwrap_err().to_string().contains("nested deeper than 64"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn whatever_the_name_nothing_outside_is_touched(
            names in proptest::collection::vec("(/|//|\\./|\\.\\./|a/|b|out/|link|outside/|\\.\\.|\n){1,8}", 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
            fs::create_dir(&inside).unwrap();
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("b"), "canary").unwrap();
            symlink(&outside, inside.join("out")).unwrap();
            symlink(outside.join("b"), inside.join("link")).unwrap();
            let opened = Directory::open(&inside).unwrap();
            for name in &names {
                let Ok(name) = BeneathPath::parse(name.as_bytes()) else { continue };
                if let Ok(mut file) = opened.create(&name) {
                    file.write_all(b"new").unwrap();
                    let mut read = Vec::new();
                    opened.file(&name).unwrap().read_to_end(&mut read).unwrap();
                    prop_assert_eq!(read, b"new");
                }
                let _ = opened.directory(&name);
            }
            prop_assert_eq!(fs::read(outside.join("b")).unwrap(), b"canary");
            prop_assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }
}
