//! The guest's root file system, a cpio archive built in memory.
//!
//! It contains the running executable as `/init`, its shared objects, the modules to
//! load, /dev/console, and mount points. For a shell or a command it also contains
//! files of this machine (`host_files`). The same contents give the same bytes.
//!
//! Reading: Documentation/driver-api/early-userspace/buffer-format.rst
//! ("newc").

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cpio::newc::{self, ModeFileType};

use super::elf::Executable;
use super::loader_path;
use crate::protocol::{COMPLETE, MODULE_LIST, MODULES};
use faultlab_base::error::{Error, Result};
use faultlab_kernels::load_order::LoadOrder;

/// include/linux/namei.h: MAXSYMLINKS.
pub(super) const LINKS_MAX: usize = 40;
/// About the size of an entry's header with its path and padding, in bytes.
const HEADER: usize = 256;
/// The maximum size of all files, in bytes. A guest needs two to three times as much
/// memory.
const ARCHIVE_MAX: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory { mode: u32 },
    File { mode: u32, modified: u32, bytes: Vec<u8> },
    Link { target: String },
    Device { mode: u32, major: u32, minor: u32 },
}

/// A root file system under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initramfs {
    nodes: BTreeMap<String, Node>,
    /// The size of all files, in bytes.
    size: u64,
}

impl Default for Initramfs {
    fn default() -> Self {
        Self::new()
    }
}

impl Initramfs {
    /// A root file system with only the mount points and /dev/console.
    #[must_use]
    pub fn new() -> Self {
        let mut fs = Self { nodes: BTreeMap::new(), size: 0 };
        for dir in ["/dev", "/proc", "/run", "/sys"] {
            fs.directory(dir, 0o755);
        }
        fs.directory("/tmp", 0o1777);
        // Documentation/admin-guide/devices.txt: 5 char, 1 = /dev/console.
        // The kernel opens it for init's standard files.
        fs.put("/dev/console", Node::Device { mode: 0o600, major: 5, minor: 1 });
        fs
    }

    /// Adds an executable at an absolute path, with its parent directories, and its
    /// shared objects at their own paths.
    ///
    /// # Errors
    /// If a shared object cannot be read.
    pub fn program(&mut self, path: &str, executable: &Executable) -> Result<()> {
        for object in &executable.objects {
            self.host_file(object)?;
        }
        for file in loader_path::FILES.map(Path::new) {
            if !executable.objects.is_empty() && file.is_file() {
                self.host_file(file)?;
            }
        }
        self.file(path, 0o755, executable.bytes.clone());
        Ok(())
    }

    /// Adds modules where the guest looks for them.
    pub fn modules(&mut self, order: &LoadOrder) {
        let mut list = String::new();
        for (number, module) in order.modules.iter().enumerate() {
            let name = format!("{number:03}-{}.ko", module.name);
            list.push_str(&name);
            list.push('\n');
            self.file(&format!("{MODULES}/{name}"), 0o644, module.bytes.clone());
        }
        self.file(MODULE_LIST, 0o644, list.into_bytes());
    }

    /// Adds a file at an absolute path, with its parent directories.
    pub fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.file_of(path, mode, 0, bytes);
    }

    /// The same, with the time of its last modification, seconds since 1970.
    pub(super) fn file_of(&mut self, path: &str, mode: u32, modified: u32, bytes: Vec<u8>) {
        self.size += bytes.len() as u64;
        self.put(path, Node::File { mode, modified, bytes });
    }

    /// Adds an empty directory, with its parents.
    pub fn directory(&mut self, path: &str, mode: u32) {
        match self.nodes.get_mut(&self.real(path)) {
            Some(Node::Directory { mode: now }) => *now = mode,
            Some(_) => {}
            None => self.put(path, Node::Directory { mode }),
        }
    }

    /// Adds an empty directory, unless the path exists.
    pub(super) fn directory_if_none(&mut self, path: &str) {
        if !self.has(path) {
            self.directory(path, 0o755);
        }
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link { target: target.to_owned() });
    }

    /// Whether there is something at this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(&self.real(path))
    }

    /// The size of all files so far, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn put(&mut self, path: &str, node: Node) {
        let path = self.real(path);
        for (at, _) in path.match_indices('/').skip(1) {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Directory { mode: 0o755 });
        }
        self.nodes.insert(path, node);
    }

    /// The path with the links in its parent directories resolved: the kernel unpacks
    /// entries in order, and a directory must come before its contents.
    fn real(&self, path: &str) -> String {
        let mut left: Vec<String> = names(Path::new(path));
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.nodes.get(&*next.to_string_lossy()) {
                Some(Node::Link { target }) if !left.is_empty() && links < LINKS_MAX => {
                    links += 1;
                    if target.starts_with('/') {
                        at = PathBuf::from("/");
                    }
                    left.extend(names(Path::new(target)));
                }
                _ => at = next,
            }
        }
        at.to_string_lossy().into_owned()
    }

    /// The archive, uncompressed. Its last entry, [`COMPLETE`], shows the guest that it
    /// has all of it: a kernel with too little memory unpacks only a part, and boots.
    ///
    /// # Errors
    /// If the files are too large for a guest.
    pub fn build(&self) -> Result<Vec<u8>> {
        if self.size > ARCHIVE_MAX {
            return Err(Error::Lab(format!(
                "the files for the guest are larger than {} MiB together; bring fewer",
                ARCHIVE_MAX >> 20
            )));
        }
        // With room for headers and paths: growing the vector would copy everything.
        let size = usize::try_from(self.size).unwrap_or(0) + self.nodes.len() * HEADER;
        let mut archive = Vec::with_capacity(size);
        // A parent's path sorts before its children's.
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            write(&mut archive, inode, path, node)?;
        }
        let inode = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        write(&mut archive, inode, COMPLETE, &Node::File { mode: 0o444, modified: 0, bytes: vec![] })?;
        newc::trailer(&mut archive).map_err(failed)?;
        Ok(archive)
    }
}

/// The components of a path, last one first, without `/` and `.`.
pub(super) fn names(path: &Path) -> Vec<String> {
    let name = |part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn failed(error: std::io::Error) -> Error {
    Error::kernel("initramfs", "write the archive", error)
}

fn write(archive: &mut Vec<u8>, inode: u32, path: &str, node: &Node) -> Result<()> {
    let (kind, mode, bytes): (_, _, &[u8]) = match node {
        Node::Directory { mode } => (ModeFileType::Directory, *mode, &[]),
        Node::File { mode, bytes, .. } => (ModeFileType::Regular, *mode, bytes),
        Node::Link { target } => (ModeFileType::Symlink, 0o777, target.as_bytes()),
        Node::Device { mode, .. } => (ModeFileType::Char, *mode, &[]),
    };
    let size = u32::try_from(bytes.len())
        .map_err(|_| Error::Lab(format!("{path}: {} bytes are too many for an initramfs", bytes.len())))?;
    let mut entry = newc::Builder::new(path.trim_start_matches('/'))
        .ino(inode)
        .nlink(1)
        .mode(mode)
        .set_mode_file_type(kind);
    match node {
        Node::Device { major, minor, .. } => entry = entry.rdev_major(*major).rdev_minor(*minor),
        Node::File { modified, .. } => entry = entry.mtime(*modified),
        Node::Directory { .. } | Node::Link { .. } => {}
    }
    let mut writer = entry.write(archive, size);
    std::io::Write::write_all(&mut writer, bytes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths in an archive, with mode and size.
    fn listed(archive: &[u8]) -> Vec<(String, u32, u32)> {
        let mut rest = archive;
        let mut entries = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                return entries;
            }
            entries.push((entry.name().to_owned(), entry.mode(), entry.file_size()));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn it_holds_a_console_and_mount_points() {
        let archive = Initramfs::new().build().unwrap();
        let names: Vec<_> =
            listed(&archive).into_iter().map(|(name, mode, _)| format!("{name} {mode:o}")).collect();
        assert_eq!(
            names,
            [
                "dev 40755",
                "dev/console 20600",
                "proc 40755",
                "run 40755",
                "sys 40755",
                "tmp 41777",
                "complete 100444"
            ]
        );
    }

    #[test]
    fn what_lies_behind_a_link_comes_after_its_directory() {
        let mut fs = Initramfs::new();
        fs.link("/lib", "usr/lib");
        fs.link("/usr/lib/x", "../y");
        fs.file("/lib/x/z", 0o644, b"z".to_vec());
        fs.link("/loop", "loop");
        fs.file("/loop/file", 0o644, vec![]);
        let archive = fs.build().unwrap();
        let names: Vec<_> = listed(&archive).into_iter().map(|(name, ..)| name).collect();
        let here = ["lib", "usr", "usr/lib", "usr/lib/x", "usr/y", "usr/y/z"];
        assert_eq!(names.iter().filter(|name| here.contains(&name.as_str())).count(), here.len());
        assert!(names.iter().position(|n| n == "usr/y") < names.iter().position(|n| n == "usr/y/z"));
        assert_eq!(names.last().map(String::as_str), Some(COMPLETE.trim_start_matches('/')));
        assert_eq!(archive, fs.build().unwrap());
    }
}
