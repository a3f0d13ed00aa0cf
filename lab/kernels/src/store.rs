//! The kernels at hand.
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
//! An entry appears by one rename(2), whole or not at all. Every process
//! holds a flock(2) on its own temporary directory, so what a dead one left
//! is known and swept by the next.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::add::{self, Progress, Source};
use super::kernel::Kernel;
use super::sums::{Sums, sha256};
use faultlab_base::error::{Error, Result};

/// The file that says what an entry is.
const ENTRY: &str = "entry.json";
/// The file with the checksums of all the others.
const SUMS: &str = "SHA256SUMS";
/// What the names of temporary directories begin with.
const TEMPORARY: &str = ".adding-";

/// The store of kernels, a directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What is known of a kernel in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the store: `debian:bookworm`, or the release.
    pub id: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// The version of the distribution's package, where it came from a suite.
    pub version: Option<String>,
    /// What was added: a suite, or the files' names.
    pub source: Vec<String>,
    /// How many modules it has.
    pub modules: usize,
    /// The SHA-256 of SHA256SUMS.
    pub sums: String,
}

impl Store {
    /// The user's store: $XDG_CACHE_HOME/faultlab/kernels, or the same under
    /// ~/.cache. Made if it is not there; what dead processes left is swept.
    ///
    /// # Errors
    /// Where neither XDG_CACHE_HOME nor HOME is an absolute path, or the
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
    /// Where the directory cannot be made.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self { root: root.into() };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&store.root)
            .map_err(|e| store.failed("make the directory", e))?;
        // A store that others may only read needs no sweeping by us.
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

    /// Adds a kernel, or brings the one of that name up to date. Nothing of
    /// it is left if that fails, at once or, if this process is killed, when
    /// the store is next opened.
    ///
    /// # Errors
    /// One sentence that says what was wrong with the source, or that the
    /// disk is full.
    pub fn add(&self, source: &Source, progress: &mut dyn FnMut(Progress)) -> Result<Entry> {
        add::add(self, source, progress).map_err(|e| match e.errno().map(Errno::from_raw) {
            Some(full @ (Errno::ENOSPC | Errno::EDQUOT)) => {
                self.failed(&format!("add {source} (nothing of it is kept)"), full.into())
            }
            _ => e,
        })
    }

    /// All entries, by name. What cannot be read as an entry is left out.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.root).map_err(|e| self.failed("list", e))? {
            let name = file.map_err(|e| self.failed("list", e))?.file_name();
            if let Some(entry) =
                name.to_str().filter(|name| !name.starts_with('.')).and_then(|id| self.entry(id))
            {
                entries.push(entry);
            }
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }

    /// The entry of this name.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<Entry> {
        let text = fs::read(self.directory(id)?.join(ENTRY)).ok()?;
        serde_json::from_slice(&text).ok().filter(|entry: &Entry| entry.id == id)
    }

    /// The kernel that a user names: one of the user's store, or the path of a
    /// bzImage, for which there need be no store.
    ///
    /// # Errors
    /// As [`Store::open`], [`Store::get`] and [`Kernel::from_image`].
    pub fn find(name: &str) -> Result<Kernel> {
        let image = Path::new(name);
        match Self::open() {
            Ok(store) if !image.is_file() || store.entry(name).is_some() => store.get(name),
            Err(error) if !image.is_file() => Err(error),
            _ => Kernel::from_image(image, None),
        }
    }

    /// The kernel of this name, its image checked against what was added. Its
    /// modules are checked when they are read.
    ///
    /// # Errors
    /// Where there is none, or it was changed.
    pub fn get(&self, id: &str) -> Result<Kernel> {
        let (Some(entry), Some(dir)) = (self.entry(id), self.directory(id)) else {
            return Err(self.unknown(id));
        };
        let text =
            fs::read(dir.join(SUMS)).map_err(|e| self.failed(&format!("read the checksums of {id}"), e))?;
        if sha256(&text) != entry.sums {
            return Err(Error::Lab(format!(
                "{} is not what was added; remove the kernel and add it again",
                dir.join(SUMS).display()
            )));
        }
        let sums = Sums::parse(&String::from_utf8_lossy(&text));
        sums.check_file(&dir, "kernel")?;
        let modules = dir.join("modules");
        Ok(Kernel {
            id: entry.id,
            release: entry.release,
            image: dir.join("kernel"),
            modules_dir: modules.is_dir().then_some(modules),
            sums: Some(sums),
        })
    }

    /// Whether there is an entry of this name with every file as it was added.
    pub(super) fn is_intact(&self, id: &str) -> bool {
        let kernel = self.get(id);
        kernel.is_ok_and(|kernel| {
            kernel.sums.zip(self.directory(id)).is_some_and(|(sums, dir)| sums.hold(&dir))
        })
    }

    /// Removes the kernel of this name: at once for others, then its files. It
    /// needs no space on the disk for that.
    ///
    /// # Errors
    /// Where there is none, or it cannot be removed.
    pub fn remove(&self, id: &str) -> Result<()> {
        let dir = self.directory(id).filter(|dir| dir.is_dir()).ok_or_else(|| self.unknown(id))?;
        self.put_temporary(&format!("remove {id}"), |path| fs::rename(&dir, path)).map(drop)
    }

    fn unknown(&self, id: &str) -> Error {
        let ids: Vec<_> = self.list().unwrap_or_default().into_iter().map(|entry| entry.id).collect();
        let way_out = match ids.len() {
            0 => "no kernel has been added yet".to_owned(),
            _ => format!("there are {}", ids.join(", ")),
        };
        Error::missing(format!("kernel {id}"), way_out)
    }

    /// Where an entry of this name lies; `None` if no entry can have it.
    fn directory(&self, id: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~:@".contains(c);
        (!id.is_empty() && !id.starts_with('.') && id.chars().all(plain)).then(|| self.root.join(id))
    }

    pub(super) fn failed(&self, tried: &str, source: io::Error) -> Error {
        Error::kernel(self.root.display().to_string(), tried, source)
    }

    /// Keeps other processes from making or sweeping temporaries and from
    /// publishing while it is held.
    fn lock(&self) -> Result<Flock<File>> {
        let root = File::open(&self.root).map_err(|e| self.failed("open", e))?;
        Flock::lock(root, FlockArg::LockExclusive).map_err(|(_, e)| self.failed("lock", e.into()))
    }

    /// Removes the temporary directories of processes that are no more.
    fn sweep(&self, _lock: &Flock<File>) {
        for file in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = file.path();
            if file.file_name().to_string_lossy().starts_with(TEMPORARY)
                && let Ok(dir) = File::open(&path)
                && let Ok(_dead) = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }

    /// A directory in which to prepare an entry; gone when it is dropped.
    pub(super) fn temporary(&self) -> Result<Temporary> {
        let create = |path: &Path| fs::DirBuilder::new().mode(0o755).create(path);
        self.put_temporary("make a temporary directory", create)
    }

    /// A temporary directory that `put` puts at the path it is given.
    fn put_temporary(&self, tried: &str, put: impl FnOnce(&Path) -> io::Result<()>) -> Result<Temporary> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lock = self.lock()?;
        self.sweep(&lock);
        let path = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(format!("{TEMPORARY}{}-{number}", process::id()));
            // In another pid namespace another process has the same number.
            if path.symlink_metadata().is_err() {
                break path;
            }
        };
        let dir = put(&path).and_then(|()| File::open(&path)).map_err(|e| self.failed(tried, e))?;
        let alive = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| self.failed("lock a temporary directory", e.into()))?;
        Ok(Temporary { path, _alive: alive })
    }

    /// Sums up the files in `prepared`, writes what the entry is, and makes
    /// it appear. If the same is there already, that one stays.
    pub(super) fn publish(&self, prepared: &Path, mut entry: Entry) -> Result<Entry> {
        let id = entry.id.clone();
        let target = self
            .directory(&id)
            .ok_or_else(|| Error::Lab(format!("{id:?} cannot be the name of a kernel in the store")))?;
        let write = || -> io::Result<Entry> {
            let sums = Sums::of(prepared)?;
            let text = sums.to_text();
            entry.modules = super::modules::count(&prepared.join("modules"))?;
            entry.sums = sha256(text.as_bytes());
            fs::write(prepared.join(SUMS), text)?;
            fs::write(prepared.join(ENTRY), serde_json::to_vec_pretty(&entry)?)?;
            // Thousands of files: one wait for the disk, not one each.
            nix::unistd::syncfs(File::open(prepared)?)?;
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
                    Some(Errno::ENOTEMPTY | Errno::EEXIST)
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

/// Puts `prepared` in the place of an older entry, in one step where the file
/// system can do that; the older one ends up beside `prepared`.
fn exchange(prepared: &Path, target: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, prepared, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            fs::rename(target, prepared.with_file_name("older"))?;
            fs::rename(prepared, target)
        }
        exchanged => exchanged.map_err(io::Error::from),
    }
}

/// A directory of this process alone, gone when it is dropped.
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
