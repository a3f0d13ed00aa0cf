//! The modules of a kernel.
//!
//! Modules are read without modules.dep, which Debian's packages lack: the
//! `.modinfo` section of each module has its name and dependencies.
//!
//! Reading: Documentation/kbuild/kbuild.rst (modules.builtin).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::beneath::BeneathPath;
use super::directory::Directory;
use super::limits::{LIST_MAX, LOADED_MODULE_MAX, MODULES_MAX};
use super::module::{self, Module, module_name};
use super::package::is_module;
use super::sums::Sums;
use faultlab_base::error::{Error, Result};

/// The directory of modules in an entry of the store.
pub(super) const MODULES: &str = "modules";

/// The modules of one kernel.
#[derive(Debug, Clone)]
pub struct Modules {
    dir: Option<Arc<Directory>>,
    pub(super) release: String,
    files: BTreeMap<String, BeneathPath>,
    built_in: BTreeSet<String>,
    sums: Option<Arc<Sums>>,
}

impl Modules {
    /// The modules of a kernel that has none.
    #[must_use]
    pub fn none(release: &str) -> Self {
        Self {
            dir: None,
            release: release.to_owned(),
            files: BTreeMap::new(),
            built_in: BTreeSet::new(),
            sums: None,
        }
    }

    /// Indexes the modules below `dir`, for a kernel of `release`. With `sums`, the
    /// checksums of an entry of the store, each module is verified when it is read.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn open(dir: Arc<Directory>, release: &str, sums: Option<Arc<Sums>>) -> Result<Self> {
        let paths = files(&dir)?;
        let mut modules = Self { dir: Some(dir), sums, ..Self::none(release) };
        // The budget for all lists: a build tree may have one in each directory.
        let mut left = LIST_MAX;
        for path in paths {
            let name = path.names().pop().unwrap_or_default().to_owned();
            if is_module(&name) {
                modules.files.insert(module_name(&name), path);
            } else if ["modules.builtin", "modules.builtin.modinfo"].contains(&name.as_str()) {
                let bytes = modules.read_file(&path, left)?;
                left -= bytes.len() as u64;
                let text = String::from_utf8_lossy(&bytes);
                if name == "modules.builtin" {
                    modules.built_in.extend(text.lines().map(module_name));
                } else {
                    // NAME.KEY=VALUE, each with a NUL
                    let names = text.split('\0').filter_map(|info| info.split_once('.'));
                    modules.built_in.extend(names.map(|(name, _)| module_name(name)));
                }
            }
        }
        Ok(modules)
    }

    /// Whether the kernel has this module built in.
    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        self.built_in.contains(&module_name(name))
    }

    /// Whether there is a file for this module.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&module_name(name))
    }

    /// The names of the modules in these directories of the kernel's source, sorted. An
    /// installed kernel has the directories below `kernel`, a build tree at its top.
    pub(super) fn names_in(&self, directories: &[&str]) -> impl Iterator<Item = &str> {
        let is_in = |path: &BeneathPath| {
            let path = path.as_str();
            let path = path.split_once("kernel/").map_or(path, |(_, path)| path);
            directories
                .iter()
                .any(|directory| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
        };
        self.files.iter().filter(move |(_, path)| is_in(path)).map(|(name, _)| name.as_str())
    }

    /// Reads and decompresses a module; `None` if there is no file for it.
    ///
    /// # Errors
    /// One sentence: it cannot be read, has changed since it was added, is damaged,
    /// too large for a guest, or was built for another kernel.
    pub fn read(&self, name: &str) -> Result<Option<Module>> {
        let Some(path) = self.files.get(&module_name(name)) else { return Ok(None) };
        let wrong = |why: String| Error::Lab(format!("module {}: {why}", self.shown(path)));
        let bytes =
            module::unpack(self.read_file(path, LOADED_MODULE_MAX)?, LOADED_MODULE_MAX).map_err(wrong)?;
        let module = Module::parse(&module_name(name), bytes).map_err(wrong)?;
        if module.release.is_empty() || module.release == self.release {
            return Ok(Some(module));
        }
        Err(wrong(format!("it is for {}, the kernel is {}", module.release, self.release)))
    }

    fn read_file(&self, path: &BeneathPath, max: u64) -> Result<Vec<u8>> {
        let failed = |e| Error::kernel("kernel modules", format!("read {}", self.shown(path)), e);
        let dir = self.dir.as_ref().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let bytes = dir.read(path, max).map_err(failed)?;
        if let (Some(sums), Some(entry)) = (&self.sums, dir.path().parent()) {
            sums.check(entry, &path.under(MODULES), &bytes)?;
        }
        Ok(bytes)
    }

    fn shown(&self, path: &BeneathPath) -> String {
        match &self.dir {
            Some(dir) => dir.path().join(path.as_str()).display().to_string(),
            None => path.to_string(),
        }
    }
}

/// The relative paths, sorted, of the modules and the lists of built-in modules below
/// `dir`. Symbolic links such as `build` and `source` are not followed.
pub(super) fn files(dir: &Directory) -> Result<Vec<BeneathPath>> {
    dir.files(is_of_modules, MODULES_MAX)
        .map_err(|e| Error::kernel("kernel modules", format!("read {}", dir.path().display()), e))
}

fn is_of_modules(name: &str) -> bool {
    is_module(name) || name.starts_with("modules.builtin")
}

/// The number of modules under `modules` of `entry`; 0 if it does not exist.
pub(super) fn count(entry: &Directory) -> io::Result<usize> {
    match entry.directory(&BeneathPath::known(MODULES)) {
        Ok(dir) => Ok(dir.files(is_module, MODULES_MAX)?.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::module::tests::ko;
    use super::*;

    pub(crate) fn directory(files: &[(&str, &[&str])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, info) in files {
            fs::write(dir.path().join(name), ko(info)).unwrap();
        }
        dir
    }

    pub(crate) fn open(dir: &Path) -> Modules {
        Modules::open(Arc::new(Directory::open(dir).unwrap()), "6.1.0", None).unwrap()
    }

    #[test]
    fn a_module_that_unpacks_to_any_size_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let zeros = io::Read::take(io::repeat(0), (LOADED_MODULE_MAX) + 1);
        fs::write(dir.path().join("bomb.ko.zst"), zstd::stream::encode_all(zeros, 1).unwrap()).unwrap();
        let large = fs::File::create(dir.path().join("large.ko")).unwrap();
        large.set_len(3 << 30).unwrap();
        let modules = open(dir.path());
        for (name, sentence) in
            [("bomb", "it unpacks to more than 128 MiB"), ("large", "it is larger than 128 MiB")]
        {
            let error = modules.read(name).unwrap_err().to_string();
            assert!(error.ends_with(sentence) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn only_files_beneath_are_modules() {
        let (dir, outside) = (directory(&[("a.ko", &["depends="])]), directory(&[("b.ko", &["depends="])]));
        symlink(outside.path().join("b.ko"), dir.path().join("b.ko")).unwrap();
        symlink(outside.path(), dir.path().join("kernel")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("c.ko"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let modules = open(dir.path());
        assert_eq!(["a", "b", "c"].map(|name| modules.has(name)), [true, false, false]);
        // These replace the module after it was found.
        fs::remove_file(dir.path().join("a.ko")).unwrap();
        symlink(outside.path().join("b.ko"), dir.path().join("a.ko")).unwrap();
        let error = modules.read("a").unwrap_err().to_string();
        assert!(error.ends_with("it is a symbolic link and no regular file"), "{error}");
        fs::write(dir.path().join("a\nb.ko"), "").unwrap();
        let opened = Directory::open(dir.path()).unwrap();
        let error = files(&opened).unwrap_err().to_string();
        assert!(
            error.contains("\"a\\nb.ko\" has characters other than printable ASCII; rename it"),
            "{error}"
        );
    }

    #[test]
    fn lists_of_what_is_built_in_are_bounded_together() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let list = dir.path().join(name).join("modules.builtin");
            fs::create_dir(list.parent().unwrap()).unwrap();
            fs::File::create(list).unwrap().set_len(LIST_MAX / 2 + 1).unwrap();
        }
        let opened = Arc::new(Directory::open(dir.path()).unwrap());
        let error = Modules::open(opened, "6.1.0", None).unwrap_err().to_string();
        assert!(error.contains("b/modules.builtin: it is larger than"), "{error}");
    }
}
