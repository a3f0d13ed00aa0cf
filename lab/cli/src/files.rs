//! The files that a run writes: captures, reports, console logs.
//!
//! faultlab may run as root and write to a directory that other users can write to. So each
//! file is created beside its target under an unpredictable name, and renamed: a symbolic
//! link or a FIFO at the target is replaced, never followed. In paths that the user gave,
//! links are followed, but not those of other users; fs.protected_symlinks has the same
//! purpose, but is not enabled on every machine.
//!
//! Reading: open(2), O_EXCL and O_NOFOLLOW; proc_sys_fs(5), protected_symlinks.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use sha2::{Digest, Sha256};

use faultlab_base::limits;

/// A file name, or a part of one, for a text: ASCII letters, digits, `.`, `_` and `-`, and no
/// `.` or `-` at the start. `:` becomes `_`, because kernels have names such as
/// `debian:sid`. If anything else had to change, or the text itself has a `_`, a hash of the
/// whole text is appended, so that distinct texts have distinct names.
pub(super) fn name(text: &str) -> String {
    let kept = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let plain = |letter: char| letter != '_' && (kept(letter) || letter == ':');
    let short = (1..=limits::FILE_NAME).contains(&text.len());
    let reduced: String = text.chars().map(|letter| if kept(letter) { letter } else { '_' }).collect();
    if short && text.chars().all(plain) && !text.starts_with(['.', '-']) {
        return reduced;
    }
    let start: String = reduced.trim_start_matches(['.', '-']).chars().take(limits::FILE_NAME).collect();
    format!("{start}_{}", hash(text))
}

/// The first 64 bits of a text's SHA-256, as 16 hexadecimal digits.
pub(super) fn hash(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let (first, _) = digest.split_first_chunk().expect("it has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

/// A directory to write to, held open as a descriptor.
#[derive(Debug)]
pub(super) struct Folder {
    directory: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a directory, creating it if needed.
    ///
    /// # Errors
    /// If it cannot be created, or the path leads through another user's link. The
    /// error names the path.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| named(path, &error);
        trusted(path)?;
        fs::create_dir_all(path).map_err(named)?;
        // Again, for a link that was created meanwhile.
        trusted(path)?;
        Self::open(path)
    }

    fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| named(path, &error);
        let mut flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if !path.symlink_metadata().map_err(named)?.is_symlink() {
            flags |= OFlag::O_NOFOLLOW;
        }
        let directory = open(path, flags, Mode::empty()).map_err(|e| named(e.into()))?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// Writes a file in the directory, replacing whatever has its name.
    ///
    /// # Errors
    /// If it cannot be written. The error names it, and the old file stays.
    pub(super) fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.replace(Path::new(name), fill).map_err(|error| named(&self.path.join(name), &error))
    }

    /// Opens a directory in this one, creating it if needed. A link is not followed.
    ///
    /// # Errors
    /// If the name is that of a file or a link, or the directory cannot be created. The error
    /// names it.
    pub(super) fn below(&self, name: &OsStr) -> io::Result<Self> {
        let path = self.path.join(name);
        let open = || -> nix::Result<OwnedFd> {
            match mkdirat(&self.directory, name, Mode::from_bits_truncate(0o777)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error),
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            openat(&self.directory, name, flags, Mode::empty())
        };
        let directory = open().map_err(|error| named(&path, &error.into()))?;
        Ok(Self { directory, path })
    }

    /// Like [`write`](Self::write), with the content in memory, and optionally executable for
    /// all who can read it.
    ///
    /// # Errors
    /// If it cannot be written. The error names it, and the old file stays.
    pub(super) fn write_bytes(&self, name: &OsStr, bytes: &[u8], executable: bool) -> io::Result<()> {
        let write = || {
            let mut draft = Draft::new(self)?;
            draft.file.write_all(bytes)?;
            if executable {
                let mode = draft.file.metadata()?.mode();
                fchmod(&draft.file, Mode::from_bits_truncate((mode | (mode & 0o444) >> 2) & 0o777))?;
            }
            draft.rename(Path::new(name))
        };
        write().map_err(|error: io::Error| named(&self.path.join(name), &error))
    }

    fn replace(&self, name: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut draft = Draft::new(self)?;
        let mut out = BufWriter::new(&mut draft.file);
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        draft.rename(name)
    }

    fn status(&self, name: &Path) -> nix::Result<FileStat> {
        fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

/// A new file under a temporary name. It is deleted when dropped, unless it was renamed.
#[derive(Debug)]
struct Draft<'a> {
    folder: &'a Folder,
    file: File,
    name: String,
    renamed: bool,
}

impl<'a> Draft<'a> {
    fn new(folder: &'a Folder) -> io::Result<Self> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        loop {
            // RandomState has random keys.
            let name = format!(".faultlab.{:016x}", RandomState::new().build_hasher().finish());
            match openat(&folder.directory, name.as_str(), flags, mode) {
                Ok(file) => return Ok(Self { folder, file: file.into(), name, renamed: false }),
                Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn rename(&mut self, name: &Path) -> io::Result<()> {
        let directory = &self.folder.directory;
        renameat(directory, self.name.as_str(), directory, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = unlinkat(&self.folder.directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Writes a file at a path that the user gave, replacing an existing one. If it belongs to
/// the user or to root, a device or a FIFO (`/dev/stdout`, `>(command)`) is written to, and a
/// link is followed. Another user's are replaced.
///
/// # Errors
/// If it cannot be written. The error names it.
pub(super) fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let failed = |error: io::Error| named(path, &error);
    let name = path.file_name().ok_or_else(|| failed(io::Error::other("it names no file")))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    trusted(parent)?;
    let folder = Folder::open(parent)?;
    let ours = folder.status(Path::new(name)).ok().filter(|status| is_ours(status.st_uid));
    let Some(status) = ours else { return folder.replace(Path::new(name), fill).map_err(failed) };
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    if !matches!(kind, SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFLNK) {
        return into(path, OFlag::O_NOFOLLOW, fill).map_err(failed);
    }
    if kind == SFlag::S_IFLNK
        && let Ok(end) = fs::metadata(path)
    {
        let kind = end.file_type();
        let special = kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket();
        // /dev/stdout may be a regular file that other processes have open.
        if special || path.starts_with("/dev") || path.starts_with("/proc") {
            return into(path, OFlag::empty(), fill).map_err(failed);
        }
        if let Some((parent, name)) = path.canonicalize().ok().as_deref().and_then(split) {
            trusted(parent)?;
            return Folder::open(parent)?.replace(name, fill).map_err(failed);
        }
    }
    folder.replace(Path::new(name), fill).map_err(failed)
}

fn split(path: &Path) -> Option<(&Path, &Path)> {
    Some((path.parent()?, Path::new(path.file_name()?)))
}

/// Writes to an existing device, FIFO, or file below /dev or /proc, without replacing it.
fn into(path: &Path, flags: OFlag, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let flags = flags | OFlag::O_NOCTTY;
    let mut out = BufWriter::new(File::options().append(true).custom_flags(flags.bits()).open(path)?);
    fill(&mut out)?;
    out.flush()
}

/// Whether links of the user with this id are followed: those of the effective user and of
/// root.
fn is_ours(user: u32) -> bool {
    user == geteuid().as_raw() || user == 0
}

/// Checks that no component of a path is another user's link.
fn trusted(path: &Path) -> io::Result<()> {
    let link = |part: &&Path| part.symlink_metadata().is_ok_and(|m| m.is_symlink() && !is_ours(m.uid()));
    match path.ancestors().find(link) {
        None => Ok(()),
        Some(part) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{}: it is a link that another user made; name where it leads", part.display()),
        )),
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use proptest::prelude::*;

    use super::*;

    const NOBODY: u32 = 65_534;

    fn words(out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"words")
    }

    /// A world-writable directory with the sticky bit.
    fn sticky() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        folder
    }

    /// The names of the files in a directory.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_planted_link_is_replaced_and_not_followed() {
        let folder = sticky();
        let (victim, planted) = (folder.path().join("victim"), folder.path().join("a.pcapng"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &planted).unwrap();
        Folder::make(folder.path()).unwrap().write("a.pcapng", words).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!planted.is_symlink());
        assert_eq!(fs::read_to_string(&planted).unwrap(), "words");
        assert_eq!(names(folder.path()), ["a.pcapng", "victim"]);
    }

    #[test]
    fn a_planted_fifo_is_replaced_and_not_waited_for() {
        let folder = sticky();
        nix::unistd::mkfifo(&folder.path().join("a.log"), Mode::S_IRWXU).unwrap();
        Folder::make(folder.path()).unwrap().write("a.log", words).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a.log")).unwrap(), "words");
    }

    #[test]
    fn links_of_another_user_are_not_followed() {
        if !geteuid().is_root() {
            return;
        }
        let folder = sticky();
        let (victim, there) = (folder.path().join("victim"), folder.path().join("there"));
        let (file, directory) = (folder.path().join("file"), folder.path().join("directory"));
        fs::write(&victim, "precious").unwrap();
        fs::create_dir(&there).unwrap();
        for (target, link) in [(&victim, &file), (&there, &directory)] {
            symlink(target, link).unwrap();
            lchown(link, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        for path in [directory.clone(), directory.join("below")] {
            let refused = Folder::make(&path).unwrap_err().to_string();
            assert!(
                refused.ends_with("it is a link that another user made; name where it leads"),
                "{refused}"
            );
        }
        assert!(write(&directory.join("junit.xml"), words).is_err());
        assert_eq!(names(&there), [""; 0]);
        write(&file, words).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&file).unwrap(), "words");
    }

    #[test]
    fn what_was_typed_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").unwrap();
        symlink(&real, &link).unwrap();
        write(&link, words).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "words");

        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read_to_string(fifo).unwrap()
        });
        write(&fifo, words).unwrap();
        assert_eq!(reader.join().unwrap(), "words");
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_file_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "old").unwrap();
        let failed = write(&file, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().ends_with("/a: no more"));
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(folder.path())),
            ("old", vec!["a".into()])
        );
    }

    #[test]
    fn honest_names_stay() {
        for (text, file) in [
            ("debian:bookworm-backports", "debian_bookworm-backports"),
            ("6.12.57+deb13", "6.12.57_deb13_"),
            ("../../etc/passwd", "_.._etc_passwd_"),
            ("", "_"),
            ("..", "_"),
            ("tw-recycle-nat", "tw-recycle-nat"),
        ] {
            let name = name(text);
            assert!(name == file || name.strip_prefix(file).is_some_and(|hash| hash.len() == 16), "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_are_files_of_the_directory_and_stay_apart(one in "\\PC{0,90}|[a:_./\n-]{0,6}", two: String) {
            let names = [&one, &two].map(|text| name(text));
            for name in &names {
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name}");
                prop_assert!(!name.is_empty() && !name.starts_with(['.', '-']) && name.len() <= 100, "{name}");
            }
            prop_assert_eq!(one == two, names[0] == names[1]);
        }
    }
}
