//! Programs and files of this machine that are copied into a guest, with their
//! dependencies: shared objects, interpreters, and files that some programs are known
//! to load at run time.
//!
//! Reading: execve(2), "Interpreter scripts"; env(1), -S.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::elf::Loader;
use super::host_files::HostFile;
use super::initramfs::Initramfs;
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// The maximum length of an interpreter line. include/uapi/linux/binfmts.h:
/// BINPRM_BUF_SIZE, 256 bytes since 5.1; the kernel truncates longer ones.
const SCRIPT_LINE: usize = 256;
/// The maximum depth of scripts that are interpreted by scripts. The guest's kernel has
/// the last word, execve(2): four. More than that are carried, so that it is the one
/// that refuses them; the limit ends a cycle.
const SCRIPTS_MAX: usize = 8;

/// Files that programs load at run time: the program's name, without a version, and the
/// files and directories. A name that ends with `-` is a prefix.
const COMPANIONS: [(&str, &[&str]); 5] = [
    ("tc", &["/usr/lib/tc", "/usr/lib64/tc"]),
    ("xtables-", &["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib64/xtables", "/usr/lib/xtables"]),
    ("nginx", &["/etc/nginx", "/usr/lib/nginx/modules", "/usr/share/nginx/modules-available"]),
    ("perl", &["/usr/lib/x86_64-linux-gnu/perl-base", "/usr/lib/x86_64-linux-gnu/perl", "/usr/share/perl"]),
    ("ip", &["/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"]),
];

/// Copies files of this machine into a guest's root file system.
#[derive(Debug)]
pub(super) struct Brought<'a> {
    pub root: &'a mut Initramfs,
    loader: Loader,
    /// The files whose dependencies were added.
    seen: BTreeSet<PathBuf>,
    /// The directories of the programs, in the order in which they were added.
    directories: Vec<PathBuf>,
}

impl<'a> Brought<'a> {
    /// Prepares to add files to this root file system, with this LD_LIBRARY_PATH.
    ///
    /// # Errors
    /// If a link such as /lib leads nowhere.
    pub fn into(root: &'a mut Initramfs, library_path: Option<&str>) -> Result<Self> {
        // Links in the root directory are added first: on a merged /usr the paths of
        // later files go through them.
        for link in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new) {
            if link.is_symlink() {
                root.host_path(link)?;
            }
        }
        let loader = Loader::new(library_path);
        Ok(Self { root, loader, seen: BTreeSet::new(), directories: vec![] })
    }

    /// Adds a program with its dependencies.
    ///
    /// # Errors
    /// If it or a dependency cannot be read.
    pub fn program(&mut self, program: &Path) -> Result<()> {
        self.file(program)?;
        if let Some(directory) = program.parent().filter(|d| !self.directories.iter().any(|o| o == d)) {
            self.directories.push(directory.to_owned());
        }
        Ok(())
    }

    /// Adds what `--with` names: a program on PATH, or a file or a directory.
    ///
    /// # Errors
    /// If there is no such thing, or it cannot be read.
    pub fn with(&mut self, what: &Path) -> Result<()> {
        let path = named(what)?;
        if !path.is_dir() {
            return self.program(&path);
        }
        for file in self.root.host_tree(&path)? {
            // Ignored: not every file of a directory need be usable.
            let _ = self.needs(&file, &path, 0);
        }
        Ok(())
    }

    /// The directories of the programs, without duplicates.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let file = self.root.host_file(path)?;
        self.needs(&file, path, 0)
    }

    /// Adds the dependencies of a file. Errors name it by `path`.
    fn needs(&mut self, file: &HostFile, path: &Path, depth: usize) -> Result<()> {
        if !self.seen.insert(file.path.clone()) {
            return Ok(());
        }
        let place = path.display();
        if file.bytes.starts_with(b"\x7fELF") {
            let objects = self.loader.objects(&file.path, &file.bytes);
            for object in objects.map_err(|why| Error::Lab(format!("{place}: {why}")))? {
                self.root.host_file(&object)?;
            }
        } else if let Some(interpreter) = interpreter(&file.bytes) {
            if depth > SCRIPTS_MAX {
                return Err(Error::Lab(format!("{place}: its interpreters are scripts without end")));
            }
            for program in interpreter.programs() {
                let found = if program.starts_with('/') {
                    Some(PathBuf::from(program)).filter(|path| path.exists())
                } else {
                    program_named(program)?
                };
                let found = found.ok_or_else(|| {
                    Error::missing(format!("{program}, the interpreter of {place},"), "install it")
                })?;
                let file = self.root.host_file(&found)?;
                self.needs(&file, &found, depth + 1)?;
            }
        }
        self.companions(&file.path)
    }

    /// Adds the files that this program is known to load at run time.
    fn companions(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_program = program.parent().is_some_and(|dir| dir.ends_with("bin") || dir.ends_with("sbin"));
        if !is_program {
            return Ok(());
        }
        let known = COMPANIONS.iter().filter(|(start, _)| match start.strip_suffix('-') {
            Some(_) => name.starts_with(start),
            None => name == *start || name.strip_prefix(start).is_some_and(is_version),
        });
        let mut wanted: Vec<PathBuf> = known.flat_map(|(_, paths)| paths.iter().map(PathBuf::from)).collect();
        if name.strip_prefix("python").is_some_and(|version| version.contains('.') && is_version(version)) {
            wanted.extend(program.ancestors().nth(2).map(|prefix| prefix.join("lib").join(&name)));
        }
        for path in wanted.into_iter().filter(|path| path.exists()) {
            for file in self.root.host_tree(&path)? {
                let _ = self.needs(&file, &path, 0);
            }
        }
        Ok(())
    }
}

fn is_version(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The absolute path of what `--with` names: a program on PATH, or a file or a
/// directory.
///
/// # Errors
/// If there is no such thing.
pub fn named(what: &Path) -> Result<PathBuf> {
    let name = what.to_string_lossy();
    if !name.contains('/') {
        if let Some(program) = program_named(&name)? {
            return Ok(program);
        }
        if !what.exists() {
            let what = format!("{name}, a program or file to bring along,");
            return Err(Error::missing(what, "install it, or give the path of a file or a directory"));
        }
    }
    std::path::absolute(what).map_err(|e| Error::kernel(what.display().to_string(), "find it", e))
}

/// The first program with this name on PATH; `None` if there is none. Programs in a
/// directory `shims`, such as pyenv's, are skipped: they start another program by files
/// that a guest does not have.
///
/// # Errors
/// If all that is found is a shim.
pub fn program_named(name: &str) -> Result<Option<PathBuf>> {
    let found: Vec<_> = programs::named(name).filter(|program| program.is_file()).collect();
    let is_shim = |program: &&PathBuf| program.parent().is_some_and(|dir| dir.ends_with("shims"));
    match (found.iter().find(|program| !is_shim(program)), found.first()) {
        (Some(program), _) => Ok(Some(program.clone())),
        (None, Some(shim)) => Err(Error::Lab(format!(
            "{}: it is a shim; give the path of the program that it starts",
            shim.display()
        ))),
        (None, None) => Ok(None),
    }
}

/// The interpreter of a script.
#[derive(Debug, PartialEq, Eq)]
struct Interpreter<'a> {
    path: &'a str,
    /// The program that the interpreter, env(1), starts.
    of_env: Option<&'a str>,
}

impl<'a> Interpreter<'a> {
    fn programs(&self) -> impl Iterator<Item = &'a str> {
        [Some(self.path), self.of_env].into_iter().flatten()
    }
}

/// The interpreter in the first line of a script.
fn interpreter(bytes: &[u8]) -> Option<Interpreter<'_>> {
    let line = bytes.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(SCRIPT_LINE)];
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = str::from_utf8(line).ok()?.split_whitespace();
    let path = words.next()?;
    let of_env = || words.find(|word| !word.starts_with('-') && !word.contains('='));
    Some(Interpreter { path, of_env: path.ends_with("/env").then(of_env).flatten() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_found_behind_env() {
        let found = |line: &'static str| {
            interpreter(line.as_bytes()).map(|i| i.programs().collect::<Vec<_>>().join(" "))
        };
        for (line, programs) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /bin/sh -e\nx", Some("/bin/sh")),
            ("#!/usr/bin/env python3\n", Some("/usr/bin/env python3")),
            ("#!/usr/bin/env -S LC_ALL=C python3 -u\n", Some("/usr/bin/env python3")),
            ("#!/usr/bin/env\n", Some("/usr/bin/env")),
            ("#!\n", None),
            ("echo", None),
            ("\u{7f}ELF", None),
        ] {
            assert_eq!(found(line).as_deref(), programs, "{line}");
        }
    }

    #[test]
    fn a_script_brings_its_interpreter_and_that_ones_objects() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/usr/bin/env bash\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut root = Initramfs::new();
        let mut brought = Brought::into(&mut root, None).unwrap();
        brought.with(&script).unwrap();
        for file in ["/usr/bin/env", "/bin/sh", "/nowhere"] {
            assert_eq!(brought.root.has(file), file == "/usr/bin/env", "{file}");
        }
        let bash = program_named("bash").unwrap().unwrap();
        assert!(brought.root.has(bash.to_str().unwrap()));
        assert_eq!(brought.directories(), [dir.path()]);
    }

    #[test]
    fn what_cannot_be_brought_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
        let mut root = Initramfs::new();
        let mut brought = Brought::into(&mut root, None).unwrap();
        let error = brought.with(&script).unwrap_err().to_string();
        let expected =
            format!("/nowhere/interpreter, the interpreter of {}, is missing; install it", script.display());
        assert_eq!(error, expected);
        let error = brought.with(Path::new("no-such-program")).unwrap_err().to_string();
        assert!(
            error.starts_with("no-such-program, a program or file to bring along, is missing"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_first_line_panics(bytes: Vec<u8>) {
            let _ = interpreter(&[b"#!".as_slice(), &bytes].concat());
        }
    }
}
