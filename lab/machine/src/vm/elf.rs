//! Executables, and the shared objects that they need to start.
//!
//! Reading: elf(5), ld.so(8).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, PT_INTERP};
use elf::endian::AnyEndian;

use faultlab_base::error::{Error, Result};

/// An executable with everything that its dynamic loader needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The ELF file.
    pub bytes: Vec<u8>,
    /// The dynamic loader: the path at which the kernel looks for it, and
    /// the file. `None` for a static executable.
    pub interpreter: Option<(PathBuf, Vec<u8>)>,
    /// The shared objects, by the names that refer to them.
    pub libraries: BTreeMap<String, Vec<u8>>,
}

/// The file without the parts that only debuggers read: everything after the last
/// loaded segment, and the section table. An executable with debugging information
/// is five times as large, and would fill every guest's memory.
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

/// The dependencies of an ELF file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
}

impl Executable {
    /// This process's own executable. Its libraries are the mapped files, so they
    /// are the ones it was started with.
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
        let interpreter = match needs.interpreter {
            Some(path) => Some((path.clone(), read(&path)?)),
            None => None,
        };
        let loader = interpreter.as_ref().and_then(|(path, _)| path.file_name()).map(OsStr::to_owned);
        let mut libraries = BTreeMap::new();
        let mut wanted = needs.libraries;
        while let Some(name) = wanted.pop() {
            if libraries.contains_key(&name) || loader.as_deref() == Some(OsStr::new(&name)) {
                continue;
            }
            let path = find(&mapped, &name).ok_or_else(|| {
                // proc(5), maps: "(deleted)" marks a file that was unlinked.
                let replaced = find(&mapped, &format!("{name} (deleted)")).is_some();
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
            libraries.insert(name, library);
        }
        Ok(Self { bytes: loadable(bytes), interpreter, libraries })
    }

    /// The executable at a path. Its libraries are the ones that its loader lists,
    /// without running the program (ld.so(8), --list).
    ///
    /// # Errors
    /// If it is not an executable, or its loader does not find all libraries.
    pub fn at(program: &Path) -> Result<Self> {
        let place = program.display().to_string();
        let read = |path: &Path| {
            fs::read(path).map_err(|e| Error::kernel(&place, format!("read {}", path.display()), e))
        };
        let wrong = |why: &str| Error::Lab(format!("{place}: {why}"));
        let bytes = read(program)?;
        let needs = Needs::of(&bytes).map_err(|why| wrong(&why))?;
        let Some(loader) = needs.interpreter else {
            return Ok(Self { bytes: loadable(bytes), interpreter: None, libraries: BTreeMap::new() });
        };
        let mut list = Command::new(&loader);
        list.arg("--list").arg(program).stdin(Stdio::null());
        let told = list.output().map_err(|e| Error::kernel(&place, loader.display().to_string(), e))?;
        if !told.status.success() {
            return Err(wrong(String::from_utf8_lossy(&told.stderr).trim()));
        }
        let listed = listed_libraries(&String::from_utf8_lossy(&told.stdout)).map_err(|line| wrong(&line))?;
        let libraries = listed.into_iter().map(|(name, path)| Ok((name, read(&path)?)));
        let libraries = libraries.collect::<Result<_>>()?;
        let interpreter = Some((loader.clone(), read(&loader)?));
        Ok(Self { bytes: loadable(bytes), interpreter, libraries })
    }
}

/// The libraries that a loader lists, `NAME => PATH (ADDRESS)`, by name. It also
/// lists itself and the kernel's vDSO, without a path. The error is the line of a
/// library that was not found: the loader may still exit with 0.
fn listed_libraries(list: &str) -> Result<Vec<(String, PathBuf)>, String> {
    let library = |line: &str| {
        let (name, path) = line.trim().split_once(" => ")?;
        if path == "not found" {
            return Some(Err(line.trim().to_owned()));
        }
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        (path.starts_with('/') && !name.contains('/')).then(|| Ok((name.to_owned(), PathBuf::from(path))))
    };
    list.lines().filter_map(library).collect()
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
        let mut needs = Self::default();
        for segment in file.segments().into_iter().flatten().filter(|s| s.p_type == PT_INTERP) {
            let path = file.segment_data(&segment).map_err(text)?;
            let path = path.split(|b| *b == 0).next().unwrap_or_default();
            needs.interpreter = Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
        }
        let common = file.find_common_data().map_err(text)?;
        if let (Some(dynamic), Some(strings)) = (common.dynamic, common.dynsyms_strs) {
            for entry in dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
                let at = usize::try_from(entry.d_val()).map_err(|e| e.to_string())?;
                needs.libraries.push(strings.get(at).map_err(text)?.to_owned());
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

/// The mapped file with this name: its own, or that of a symbolic link beside it
/// (libz.so.1 -> libz.so.1.3).
fn find(mapped: &[PathBuf], name: &str) -> Option<PathBuf> {
    let called = mapped.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
    let linked = || {
        mapped.iter().find(|path| {
            path.parent()
                .and_then(|dir| dir.join(name).canonicalize().ok())
                .is_some_and(|target| target == **path)
        })
    };
    called.or_else(linked).cloned()
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
    fn a_loader_lists_libraries() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd8c5f2000)\n\
                    \tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f1ce2c3a000)\n\
                    \tlibc.so.6 => /lib (x)/libc.so.6 (0x00007f1ce2a59000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /lib/ld-2.36.so (0x00007f1ce2d8d000)\n";
        let expected =
            [("libmnl.so.0", "/lib/x86_64-linux-gnu/libmnl.so.0"), ("libc.so.6", "/lib (x)/libc.so.6")];
        let listed = listed_libraries(list).unwrap();
        assert_eq!(listed, expected.map(|(name, path)| (name.into(), path.into())));
        let gone = format!("{list}\tlibgone.so.1 => not found\n");
        assert_eq!(listed_libraries(&gone).unwrap_err(), "libgone.so.1 => not found");
    }

    #[test]
    fn a_program_has_what_it_needs() {
        let this = Executable::at(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(this, Executable::running().unwrap());
        assert!(Executable::at(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn this_test_knows_what_it_needs() {
        let executable = Executable::running().unwrap();
        assert_eq!(executable.interpreter.is_none(), executable.libraries.is_empty());
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
