//! The guest's root file system, a cpio archive built in memory.
//!
//! It holds the running executable as `/init`, its shared objects, the modules to
//! load, a console, and mount points; nothing else. The same contents give the same
//! bytes.
//!
//! Reading: Documentation/driver-api/early-userspace/buffer-format.rst
//! ("newc"), ld.so(8).

use std::collections::BTreeMap;
use std::path::Path;

use cpio::newc::{self, ModeFileType};

use super::elf::Executable;
use crate::protocol::{MODULE_LIST, MODULES};
use faultlab_base::error::{Error, Result};
use faultlab_kernels::load_order::LoadOrder;

/// The directory of the shared objects. The directories that a loader searches
/// without an ld.so.cache are links to it.
const LIBRARIES: &str = "/lib";
/// ld.so(8): "/lib, and then /usr/lib. (On some 64-bit architectures, ...
/// /lib64, and then /usr/lib64.)", and Debian's multiarch directories.
const LOADER_LOOKS_IN: [&str; 4] = ["/lib64", "/usr/lib", "/usr/lib64", "/lib/x86_64-linux-gnu"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
    Device { mode: u32, major: u32, minor: u32 },
}

/// A root file system under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initramfs {
    nodes: BTreeMap<String, Node>,
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
        let mut fs = Self { nodes: BTreeMap::new() };
        for dir in ["/dev", "/proc", "/run", "/sys", "/tmp"] {
            fs.directory(dir);
        }
        // Documentation/admin-guide/devices.txt: 5 char, 1 = /dev/console.
        // The kernel opens it for init's standard files.
        fs.put("/dev/console", Node::Device { mode: 0o600, major: 5, minor: 1 });
        fs
    }

    /// Adds an executable at an absolute path, with its parent directories, and
    /// makes its shared objects findable. Executables share objects of the same
    /// name.
    pub fn program(&mut self, path: &str, executable: &Executable) {
        self.file(path, 0o755, executable.bytes.clone());
        let Some((interpreter, _)) = &executable.interpreter else { return };
        let home = interpreter.parent().and_then(Path::to_str).unwrap_or(LIBRARIES);
        for dir in LOADER_LOOKS_IN.into_iter().chain([home]).filter(|dir| *dir != LIBRARIES) {
            self.put(dir, Node::Link { target: LIBRARIES.to_owned() });
        }
        for (path, mode, bytes) in shared_objects(executable) {
            self.file(&path, mode, bytes.clone());
        }
    }

    /// Whether each of the executable's shared objects is the same as the one
    /// already here, or has a new name.
    #[must_use]
    pub fn fits(&self, executable: &Executable) -> bool {
        shared_objects(executable).all(|(path, _, bytes)| match self.nodes.get(&path) {
            Some(Node::File { bytes: here, .. }) => here == bytes,
            Some(_) => false,
            None => true,
        })
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
        self.put(path, Node::File { mode, bytes });
    }

    /// Adds an empty directory, with its parents.
    pub fn directory(&mut self, path: &str) {
        self.put(path, Node::Directory);
    }

    fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Directory);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// The archive, uncompressed.
    ///
    /// # Errors
    /// If a file is too large for the format (4 GiB).
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        let failed = |e| Error::kernel("initramfs", "write the archive", e);
        // A parent's path sorts before its children's.
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            let (kind, mode, bytes): (_, _, &[u8]) = match node {
                Node::Directory => (ModeFileType::Directory, 0o755, &[]),
                Node::File { mode, bytes } => (ModeFileType::Regular, *mode, bytes),
                Node::Link { target } => (ModeFileType::Symlink, 0o777, target.as_bytes()),
                Node::Device { mode, .. } => (ModeFileType::Char, *mode, &[]),
            };
            let size = u32::try_from(bytes.len()).map_err(|_| {
                Error::Lab(format!("{path}: {} bytes are too many for an initramfs", bytes.len()))
            })?;
            let mut entry = newc::Builder::new(path.trim_start_matches('/'))
                .ino(inode)
                .nlink(1)
                .mode(mode)
                .set_mode_file_type(kind);
            if let Node::Device { major, minor, .. } = node {
                entry = entry.rdev_major(*major).rdev_minor(*minor);
            }
            let mut writer = entry.write(&mut archive, size);
            std::io::Write::write_all(&mut writer, bytes).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        newc::trailer(&mut archive).map_err(failed)?;
        Ok(archive)
    }
}

/// The loader and the libraries of an executable: path, mode, and the file.
fn shared_objects(executable: &Executable) -> impl Iterator<Item = (String, u32, &Vec<u8>)> {
    let loader = executable.interpreter.iter().map(|(path, bytes)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (format!("{LIBRARIES}/{name}"), 0o755, bytes)
    });
    let library = |(name, bytes)| (format!("{LIBRARIES}/{name}"), 0o644, bytes);
    loader.chain(executable.libraries.iter().map(library))
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
            ["dev 40755", "dev/console 20600", "proc 40755", "run 40755", "sys 40755", "tmp 40755"]
        );
    }

    #[test]
    fn a_loader_finds_its_libraries_where_it_looks() {
        let executable = Executable {
            bytes: b"exe".to_vec(),
            interpreter: Some(("/store/abc-libc/lib/ld.so".into(), b"ld".to_vec())),
            libraries: [("libc.so.6".to_owned(), b"libc".to_vec())].into(),
        };
        let mut fs = Initramfs::new();
        fs.program("/init", &executable);
        let archive = fs.build().unwrap();
        let files = listed(&archive);
        let kind = |name: &str| files.iter().find(|(n, ..)| n == name).map(|(_, mode, _)| mode & 0o170_000);
        assert_eq!(kind("lib"), Some(0o040_000));
        assert_eq!(kind("lib/ld.so"), Some(0o100_000));
        assert_eq!(kind("lib64"), Some(0o120_000));
        assert_eq!(kind("store/abc-libc/lib"), Some(0o120_000));
        assert_eq!(kind("store/abc-libc"), Some(0o040_000));
        assert_eq!(archive, fs.build().unwrap());
    }

    #[test]
    fn an_executable_of_another_c_library_does_not_fit() {
        let linked = |loader: &[u8], libraries: &[(&str, &[u8])]| Executable {
            bytes: b"exe".to_vec(),
            interpreter: Some(("/lib64/ld.so".into(), loader.to_vec())),
            libraries: libraries.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect(),
        };
        let mut fs = Initramfs::new();
        let init = linked(b"ld", &[("libc.so.6", b"libc")]);
        assert!(fs.fits(&init));
        fs.program("/init", &init);
        assert!(fs.fits(&linked(b"ld", &[("libc.so.6", b"libc"), ("libmnl.so.0", b"mnl")])));
        assert!(!fs.fits(&linked(b"ld", &[("libc.so.6", b"another")])));
        let of_a_store = Executable {
            interpreter: Some(("/store/abc-libc/lib/ld.so".into(), b"another".to_vec())),
            ..init.clone()
        };
        assert!(!fs.fits(&of_a_store));
        assert!(fs.fits(&Executable { interpreter: None, libraries: [].into(), ..init }));
    }
}
