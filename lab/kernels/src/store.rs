//! The store of kernels.
//!
//! ```text
//! $XDG_CACHE_HOME/faultlab/kernels/
//!   debian:bookworm/
//!     entry.json      what it is and where it came from
//!     SHA256SUMS      of all the others; `sha256sum -c` reads it
//!     kernel          the bzImage
//!     config          the kernel's configuration, where its package has one
//!     modules/        as under /lib/modules/RELEASE
//!   .adding-4711-0/   of a process that is adding or removing one, or that died of it
//! ```
//!
//! An entry is published by one rename(2), complete or not at all. Every process holds
//! a flock(2) on its temporary directory. The next process that opens the store removes
//! the temporary directories that nobody has locked.
//!
//! The content of the store is not trusted: metadata is checked before it becomes an
//! [`Entry`], and files below the store are opened without following links.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, RenameFlags, renameat2};

use super::beneath::{BeneathPath, quoted};
use super::directory::Directory;
use super::entry::Entry;
use super::kernel_image::{IMAGE, KernelImage};
use super::limits::{ENTRY_MAX, SUMS_MAX};
use super::modules::MODULES;
use super::sums::{Sums, sha256};
use faultlab_base::error::{Error, Result};

/// The file with the metadata of an entry.
const ENTRY: &str = "entry.json";
/// The file with the checksums of all the others.
const SUMS: &str = "SHA256SUMS";
/// The maximum length of an entry's name: include/uapi/linux/limits.h, NAME_MAX.
const ID_MAX: usize = 255;
/// The prefix of temporary directories.
const TEMPORARY: &str = ".adding-";

/// The store of kernels, a directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The user's store: $XDG_CACHE_HOME/faultlab/kernels, or
    /// ~/.cache/faultlab/kernels. Creates it if needed, and removes the temporary
    /// directories of dead processes.
    ///
    /// # Errors
    /// If neither XDG_CACHE_HOME nor HOME is an absolute path, or the
    /// directory cannot be made.
    pub fn open() -> Result<Self> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".cache")))
            .ok_or_else(|| {
                Error::missing(
                    "a directory for the kernel store",
                    "set HOME or XDG_CACHE_HOME to an absolute path",
                )
            })?;
        Self::at(cache.join("faultlab/kernels"))
    }

    /// A store at `root`.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self { root: root.into() };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&store.root)
            .map_err(|e| store.failed("make the directory", e))?;
        // Errors are ignored: a store that cannot be locked can still be read.
        if let Ok(lock) = store.lock() {
            store.sweep(&lock);
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All valid entries, sorted by name; [`Store::invalid`] returns the others.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = self.scan()?.into_iter().filter_map(Result::ok).collect::<Vec<_>>();
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }

    /// One error for each invalid entry of the store.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn invalid(&self) -> Result<Vec<Error>> {
        let mut errors = self.scan()?.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        errors.sort_by_key(Error::to_string);
        Ok(errors)
    }

    fn scan(&self) -> Result<Vec<Result<Entry>>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.root).map_err(|e| self.failed("list", e))? {
            let name = file.map_err(|e| self.failed("list", e))?.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match name.to_str().filter(|id| is_id(id)) {
                // Without an entry.json, a directory is not an entry.
                Some(id) => found.extend(self.read_entry(id).transpose()),
                None => found.push(Err(Error::Lab(format!(
                    "{}: {} is no name of a kernel; remove the file",
                    self.root.display(),
                    quoted(name.as_encoded_bytes())
                )))),
            }
        }
        Ok(found)
    }

    /// The entry of this name, if it exists and is valid.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<Entry> {
        self.read_entry(id).ok().flatten()
    }

    /// The entry of this name; `None` if there is none.
    fn read_entry(&self, id: &str) -> Result<Option<Entry>> {
        let bytes = self.open_entry(id).and_then(|dir| dir.read(&BeneathPath::known(ENTRY), ENTRY_MAX));
        let why = match bytes {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => e.to_string(),
            Ok(bytes) => match Entry::parse(id, &bytes) {
                Ok(entry) => return Ok(Some(entry)),
                Err(why) => format!("it {why}"),
            },
        };
        let path = self.root.join(id).join(ENTRY);
        Err(Error::Lab(format!("{}: {why}; remove the kernel and add it again", path.display())))
    }

    /// The directory of the entry of this name.
    fn open_entry(&self, id: &str) -> io::Result<Directory> {
        if !is_id(id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = BeneathPath::parse(id.as_bytes()).map_err(io::Error::other)?;
        Directory::open(&self.root)?.directory(&path)
    }

    /// The kernel named by the user: an entry of the user's store, or the path of a
    /// bzImage, which needs no store.
    ///
    /// # Errors
    /// As [`Store::open`], [`Store::get`] and [`KernelImage::from_image`].
    pub fn find(name: &str) -> Result<KernelImage> {
        let image = Path::new(name);
        match Self::open() {
            Ok(store) if !image.is_file() || !matches!(store.read_entry(name), Ok(None)) => store.get(name),
            Err(error) if !image.is_file() => Err(error),
            _ => KernelImage::from_image(image, None),
        }
    }

    /// The kernel of this name, with its image verified. Modules are verified when
    /// they are read.
    ///
    /// # Errors
    /// If there is none, or its image has changed.
    pub fn get(&self, id: &str) -> Result<KernelImage> {
        let Some(entry) = self.read_entry(id)? else { return Err(self.unknown(id)) };
        let failed = |what: &str| {
            let tried = format!("read {what} of {id}");
            move |e| self.failed(&tried, e)
        };
        let dir = self.open_entry(id).map_err(failed("the directory"))?;
        let text = dir.read(&BeneathPath::known(SUMS), SUMS_MAX).map_err(failed("the checksums"))?;
        let changed = |why: &str| {
            let path = dir.path().join(SUMS);
            Error::Lab(format!("{} {why}; remove the kernel and add it again", path.display()))
        };
        if sha256(&text) != entry.sums {
            return Err(changed("is not what was added"));
        }
        let sums = Sums::parse(&String::from_utf8_lossy(&text))
            .map_err(|why| changed(&format!("is damaged: {why}")))?;
        sums.check_file(&dir, &BeneathPath::known(IMAGE))?;
        let modules_dir = match dir.directory(&BeneathPath::known(MODULES)) {
            Ok(modules) => Some(Arc::new(modules)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed("the modules")(e)),
        };
        Ok(KernelImage {
            id: entry.id,
            release: entry.release,
            image: dir.path().join(IMAGE),
            modules_dir,
            stored: Some((Arc::new(dir), Arc::new(sums))),
        })
    }

    /// Whether an entry of this name exists with every file unchanged.
    pub(super) fn is_intact(&self, id: &str) -> bool {
        let kernel = self.get(id);
        kernel.is_ok_and(|kernel| kernel.stored.is_some_and(|(dir, sums)| sums.hold(&dir)))
    }

    /// Removes the entry of this name, which may be invalid: renames it, so that it
    /// disappears at once, and then deletes its files.
    ///
    /// # Errors
    /// If there is nothing to remove, or it cannot be removed.
    pub fn remove(&self, id: &str) -> Result<()> {
        let path = self.root.join(id);
        let tried = format!("remove {id}");
        match path.symlink_metadata() {
            Ok(there) if is_id(id) && there.is_dir() => {
                self.put_temporary(&tried, |temporary| fs::rename(&path, temporary)).map(drop)
            }
            Ok(_) if is_id(id) => fs::remove_file(&path).map_err(|e| self.failed(&tried, e)),
            _ => Err(self.unknown(id)),
        }
    }

    fn unknown(&self, id: &str) -> Error {
        let ids: Vec<_> = self.list().unwrap_or_default().into_iter().map(|entry| entry.id).collect();
        let advice = match ids.len() {
            0 => "no kernel has been added yet".to_owned(),
            _ => format!("there are {}", ids.join(", ")),
        };
        Error::missing(format!("kernel {id}"), advice)
    }

    pub(super) fn failed(&self, tried: &str, source: io::Error) -> Error {
        Error::kernel(self.root.display().to_string(), tried, source)
    }

    /// Locks the store: while the lock is held, no other process publishes an entry, or
    /// creates or removes temporary directories.
    fn lock(&self) -> Result<Flock<File>> {
        let root = File::open(&self.root).map_err(|e| self.failed("open", e))?;
        Flock::lock(root, FlockArg::LockExclusive).map_err(|(_, e)| self.failed("lock", e.into()))
    }

    /// Removes the temporary directories of processes that have ended.
    fn sweep(&self, _lock: &Flock<File>) {
        for file in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = file.path();
            if file.file_name().to_string_lossy().starts_with(TEMPORARY)
                && let Ok(dir) = open_directory(&path)
                && let Ok(_dead) = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }

    /// A temporary directory for preparing an entry; removed when dropped.
    pub(super) fn temporary(&self) -> Result<Temporary> {
        let create = |path: &Path| fs::DirBuilder::new().mode(0o755).create(path);
        self.put_temporary("make a temporary directory", create)
    }

    /// A new temporary directory, which `put` creates at the path that it receives.
    fn put_temporary(&self, tried: &str, put: impl FnOnce(&Path) -> io::Result<()>) -> Result<Temporary> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lock = self.lock()?;
        self.sweep(&lock);
        let path = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(format!("{TEMPORARY}{}-{number}", process::id()));
            // A process in another pid namespace may have the same number.
            if path.symlink_metadata().is_err() {
                break path;
            }
        };
        let dir = put(&path).and_then(|()| open_directory(&path)).map_err(|e| self.failed(tried, e))?;
        let alive = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| self.failed("lock a temporary directory", e.into()))?;
        Ok(Temporary { path, _alive: alive })
    }

    /// Computes the checksums of the files in `prepared`, writes the metadata, and
    /// publishes the entry. An identical existing entry is kept.
    pub(super) fn publish(&self, prepared: &Path, mut entry: Entry) -> Result<Entry> {
        let id = entry.id.clone();
        if !is_id(&id) {
            return Err(Error::Lab(format!("{id:?} cannot be the name of a kernel in the store")));
        }
        let target = self.root.join(&id);
        let write = || -> io::Result<Entry> {
            let dir = Directory::open(prepared)?;
            let text = Sums::of(&dir)?.to_text();
            entry.modules = super::modules::count(&dir)?;
            entry.sums = sha256(text.as_bytes());
            let bytes = serde_json::to_vec_pretty(&entry)?;
            // Only write metadata that can be read back.
            Entry::parse(&id, &bytes).map_err(|why| io::Error::other(format!("its {ENTRY} {why}")))?;
            dir.create(&BeneathPath::known(SUMS))?.write_all(text.as_bytes())?;
            dir.create(&BeneathPath::known(ENTRY))?.write_all(&bytes)?;
            // One syncfs(2) instead of thousands of fsync(2).
            nix::unistd::syncfs(open_directory(prepared)?)?;
            Ok(entry)
        };
        let entry = write().map_err(|e| self.failed(&format!("write {id}"), e))?;
        let lock = self.lock()?;
        if self.entry(&id).is_some_and(|there| there == entry) && self.is_intact(&id) {
            return Ok(entry);
        }
        let moved = match fs::rename(prepared, &target) {
            Err(e)
                if matches!(
                    e.raw_os_error().map(Errno::from_raw),
                    // ENOTDIR: a file has the entry's name.
                    Some(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR)
                ) =>
            {
                exchange(prepared, &target)
            }
            moved => moved,
        };
        moved.and_then(|()| lock.sync_all()).map_err(|e| self.failed(&format!("publish {id}"), e))?;
        Ok(entry)
    }
}

/// Whether this is a valid entry name.
fn is_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~:@".contains(c);
    !id.is_empty() && !id.starts_with('.') && id.len() <= ID_MAX && id.chars().all(plain)
}

/// Opens a directory; fails for any other type of file.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Replaces an older entry by `prepared`, atomically if the file system supports
/// RENAME_EXCHANGE. The older one is moved to the temporary directory.
fn exchange(prepared: &Path, target: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, prepared, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            fs::rename(target, prepared.with_file_name("older"))?;
            fs::rename(prepared, target)
        }
        exchanged => exchanged.map_err(io::Error::from),
    }
}

/// A private directory of this process, removed when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    _alive: Flock<File>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.path) {
            faultlab_base::terminal::say(&format!("{} is left behind: {e}", self.path.display()));
        }
    }
}
