//! Executables, and the shared objects that they need to start.
//!
//! They are found by parsing. ldd(1) may execute the file's loader, which an untrusted
//! ELF file chooses.
//!
//! Reading: elf(5), ld.so(8).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, PT_INTERP};
use elf::endian::AnyEndian;

use super::loader_path;
use faultlab_base::error::{Error, Result};

/// The maximum number of shared objects of one executable.
const OBJECTS_MAX: usize = 1000;

/// An executable, and the paths of its dynamic loader and shared objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The ELF file without what only debuggers read.
    pub bytes: Vec<u8>,
    /// The dynamic loader and the shared objects, at the paths at which they are
    /// looked for; none for a static executable.
    pub objects: BTreeSet<PathBuf>,
}

/// The file without what only debuggers read: the section table, and everything after
/// the last segment. This executable with debugging information is five times
/// as large, and would fill the memory of a guest.
fn loadable(mut bytes: Vec<u8>) -> Vec<u8> {
    /// elf(5): e_shoff of a 64-bit header; e_shnum and e_shstrndx.
    const SECTIONS: [std::ops::Range<usize>; 2] = [0x28..0x30, 0x3c..0x40];
    let end = ElfBytes::<AnyEndian>::minimal_parse(&bytes).ok().and_then(|elf| {
        let segments = elf.segments()?;
        let ends = segments.iter().map(|s| usize::try_from(s.p_offset.saturating_add(s.p_filesz)));
        ends.collect::<Result<Vec<_>, _>>().ok()?.into_iter().max()
    });
    let is_64_bit = bytes.get(4) == Some(&2);
    if let Some(end) = end.filter(|end| is_64_bit && (0x40..bytes.len()).contains(end)) {
        bytes.truncate(end);
        for range in SECTIONS {
            bytes[range].fill(0);
        }
    }
    bytes
}

/// The dependencies of an ELF file, and its own search path for them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    /// DT_RPATH and DT_RUNPATH, directories separated by colons.
    rpath: Option<String>,
    runpath: Option<String>,
    machine: u16,
}

impl Executable {
    /// The executable of this process. Its objects are the files that are mapped, which
    /// are those that it was started with.
    ///
    /// # Errors
    /// If /proc cannot be read, or a mapped file is gone from its path (the C
    /// library was upgraded while the process runs).
    pub fn running() -> Result<Self> {
        let read = |path: &Path| {
            fs::read(path).map_err(|e| Error::kernel("own executable", format!("read {}", path.display()), e))
        };
        let bytes = read(Path::new("/proc/self/exe"))?;
        let maps = read(Path::new("/proc/self/maps"))?;
        let mapped = mapped_files(&String::from_utf8_lossy(&maps));
        let wrong = |what: &str, why: &str| Error::Lab(format!("{what}: {why}"));
        let needs = Needs::of(&bytes).map_err(|why| wrong("own executable", &why))?;
        let loader = needs.interpreter.as_deref().and_then(Path::file_name).map(OsStr::to_owned);
        let mut objects: BTreeSet<PathBuf> = needs.interpreter.into_iter().collect();
        let mut seen = BTreeSet::new();
        let mut wanted = needs.libraries;
        while let Some(name) = wanted.pop() {
            if loader.as_deref() == Some(OsStr::new(&name)) || !seen.insert(name.clone()) {
                continue;
            }
            let path = find_mapped(&mapped, &name).ok_or_else(|| {
                // proc(5), maps: "(deleted)" marks a file that was unlinked.
                let replaced = find_mapped(&mapped, &format!("{name} (deleted)")).is_some();
                wrong(
                    &name,
                    if replaced {
                        "replaced since this process started; start it again"
                    } else {
                        "needed but not mapped"
                    },
                )
            })?;
            let library = read(&path)?;
            wanted.extend(
                Needs::of(&library).map_err(|why| wrong(&path.display().to_string(), &why))?.libraries,
            );
            objects.insert(path);
        }
        Ok(Self { bytes: loadable(bytes), objects })
    }
}

/// A file whose dependencies are being searched for: its path, its needs, and the
/// RPATHs of the objects that depend on it.
type Unresolved = (PathBuf, Needs, Vec<PathBuf>);

/// Finds shared objects where this machine's dynamic loader does, except in relative
/// directories, those of `$LIB` and `$PLATFORM`, and glibc-hwcaps.
#[derive(Debug)]
pub(super) struct Loader {
    /// LD_LIBRARY_PATH.
    library_path: Vec<PathBuf>,
    /// The directories of ld.so.conf, and the loader's own.
    default_directories: Vec<PathBuf>,
    /// The files that were read; `None` for one that is missing or not an ELF file.
    known: RefCell<BTreeMap<PathBuf, Option<Needs>>>,
}

impl Loader {
    /// A loader with this LD_LIBRARY_PATH.
    pub fn new(library_path: Option<&str>) -> Self {
        Self {
            library_path: library_path.map(|path| split(path, Path::new("/"))).unwrap_or_default(),
            default_directories: loader_path::directories(),
            known: RefCell::default(),
        }
    }

    /// The loader and the shared objects of an ELF file, at the paths at which they
    /// are looked for. A file that is no executable and no shared object has none.
    ///
    /// # Errors
    /// A clause that names the missing object.
    pub fn objects(&self, file: &Path, bytes: &[u8]) -> Result<BTreeSet<PathBuf>, String> {
        let Ok(needs) = Needs::of(bytes) else { return Ok(BTreeSet::new()) };
        let mut objects: BTreeSet<PathBuf> = needs.interpreter.iter().cloned().collect();
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<Unresolved> = vec![(file.to_owned(), needs, vec![])];
        while let Some((file, needs, mut rpaths)) = open.pop() {
            let origin = fs::canonicalize(&file).unwrap_or(file.clone());
            let origin = origin.parent().unwrap_or(Path::new("/"));
            // ld.so(8): DT_RPATH counts only without DT_RUNPATH, and then also for
            // the dependencies of a dependency.
            let mut look_in = vec![];
            if needs.runpath.is_none() {
                rpaths.splice(0..0, needs.rpath.iter().flat_map(|path| split(path, origin)));
                look_in.clone_from(&rpaths);
            }
            look_in.extend(self.library_path.iter().cloned());
            look_in.extend(needs.runpath.iter().flat_map(|path| split(path, origin)));
            for name in &needs.libraries {
                if !names.insert(name.clone()) {
                    continue;
                }
                let (path, found) = self
                    .find(name, &look_in, needs.machine)
                    .ok_or_else(|| format!("it needs the shared object {name}, which this machine lacks"))?;
                objects.insert(path.clone());
                if objects.len() > OBJECTS_MAX {
                    return Err(format!("it needs more than {OBJECTS_MAX} shared objects"));
                }
                open.push((path, found, rpaths.clone()));
            }
        }
        Ok(objects)
    }

    fn find(&self, name: &str, look_in: &[PathBuf], machine: u16) -> Option<(PathBuf, Needs)> {
        let fits = |path: PathBuf| self.needs_of(&path).filter(|n| n.machine == machine).map(|n| (path, n));
        if name.contains('/') {
            return fits(PathBuf::from(name));
        }
        look_in.iter().chain(&self.default_directories).find_map(|directory| fits(directory.join(name)))
    }

    fn needs_of(&self, path: &Path) -> Option<Needs> {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        let needs = is_file.then(|| fs::read(path).ok()).flatten().and_then(|bytes| Needs::of(&bytes).ok());
        self.known.borrow_mut().insert(path.to_owned(), needs.clone());
        needs
    }
}

/// The directories of a search path of a file in `origin`. ld.so(8), "Dynamic
/// string tokens".
fn split(path: &str, origin: &Path) -> Vec<PathBuf> {
    let origin = origin.to_string_lossy();
    let expand = |part: &str| part.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin);
    // Relative ones, which depend on the current directory, are left out.
    path.split([':', ';']).map(expand).map(PathBuf::from).filter(|path| path.is_absolute()).collect()
}

/// Whether this is an executable that needs no loader.
#[must_use]
pub fn is_static(bytes: &[u8]) -> bool {
    Needs::of(bytes).is_ok_and(|needs| needs.interpreter.is_none() && needs.libraries.is_empty())
}

impl Needs {
    fn of(bytes: &[u8]) -> std::result::Result<Self, String> {
        let text = |e: elf::ParseError| e.to_string();
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(text)?;
        let mut needs = Self { machine: file.ehdr.e_machine, ..Self::default() };
        for segment in file.segments().into_iter().flatten().filter(|s| s.p_type == PT_INTERP) {
            let path = file.segment_data(&segment).map_err(text)?;
            let path = path.split(|b| *b == 0).next().unwrap_or_default();
            needs.interpreter = Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
        }
        let common = file.find_common_data().map_err(text)?;
        if let (Some(dynamic), Some(strings)) = (common.dynamic, common.dynsyms_strs) {
            for entry in dynamic.iter() {
                if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&entry.d_tag) {
                    continue;
                }
                let at = usize::try_from(entry.d_val()).map_err(|e| e.to_string())?;
                let string = strings.get(at).map_err(text)?.to_owned();
                match entry.d_tag {
                    DT_NEEDED => needs.libraries.push(string),
                    DT_RPATH => needs.rpath = Some(string),
                    _ => needs.runpath = Some(string),
                }
            }
        }
        Ok(needs)
    }
}

/// The files in /proc/PID/maps, without duplicates: `ADDRESS PERMS OFFSET DEV INODE
/// PATH`.
fn mapped_files(maps: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let mut files: Vec<_> = maps.lines().filter_map(path).collect();
    files.sort();
    files.dedup();
    files
}

/// The path at which a mapped file has this name: its own, or that of a symbolic
/// link beside it (libz.so.1 -> libz.so.1.3).
fn find_mapped(mapped: &[PathBuf], name: &str) -> Option<PathBuf> {
    let called = mapped.iter().find(|path| path.file_name() == Some(OsStr::new(name))).cloned();
    let link = |path: &PathBuf| {
        let link = path.parent()?.join(name);
        link.canonicalize().is_ok_and(|target| target == *path).then_some(link)
    };
    called.or_else(|| mapped.iter().find_map(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_name_each_file_once() {
        let maps = "55d0-55d1 r--p 00000000 08:01 131  /usr/bin/a b\n\
                    7f00-7f01 r-xp 00000000 08:01 132  /lib/libc.so.6\n\
                    7f01-7f02 rw-p 00000000 08:01 132  /lib/libc.so.6\n\
                    7ffd-7ffe rw-p 00000000 00:00 0    [stack]\n";
        assert_eq!(mapped_files(maps), [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/usr/bin/a b")]);
    }

    #[test]
    fn objects_are_found_as_the_loader_finds_them() {
        let this = std::env::current_exe().unwrap();
        let real = |paths: BTreeSet<PathBuf>| -> BTreeSet<PathBuf> {
            paths.into_iter().map(|path| path.canonicalize().unwrap()).collect()
        };
        let found = Loader::new(None).objects(&this, &fs::read(&this).unwrap()).unwrap();
        assert_eq!(real(found), real(Executable::running().unwrap().objects));
        assert_eq!(Loader::new(None).objects(&this, b"#!/bin/sh").unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_missing_object_is_named() {
        let this = std::env::current_exe().unwrap();
        let bytes = fs::read(&this).unwrap();
        let loader = Loader { library_path: vec![], default_directories: vec![], known: RefCell::default() };
        if let Err(why) = loader.objects(&this, &bytes) {
            assert!(why.starts_with("it needs the shared object lib") && why.ends_with("lacks"), "{why}");
        }
    }

    #[test]
    fn a_search_path_is_relative_to_its_file() {
        let expected = ["/opt/x/../lib", "/opt/x", "/lib"].map(PathBuf::from);
        assert_eq!(split("$ORIGIN/../lib:${ORIGIN}:/lib:relative:", Path::new("/opt/x")), expected);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..4096, byte: u8, length in 0usize..8192) {
            let mut bytes = fs::read("/proc/self/exe").unwrap();
            bytes.truncate(length.max(at + 1));
            bytes[at] = byte;
            let _ = Needs::of(&bytes);
        }
    }
}
