//! The directories in which this machine's dynamic loader looks for shared objects.
//!
//! Reading: ld.so(8), ldconfig(8); musl's ldso/dynlink.c, `sys_path`.

use std::fs;
use std::path::{Path, PathBuf};

/// The file with the directories of glibc's loader, besides its own.
const CONFIGURATION: &str = "/etc/ld.so.conf";
/// The files that a guest's loader reads: glibc's cache, and musl's path.
pub(super) const FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld-musl-x86_64.path"];
/// ld.so(8): "/lib, and then /usr/lib. (On some 64-bit architectures, ... /lib64,
/// and then /usr/lib64.)", Debian's multiarch directories, and musl's.
const OWN: [&str; 7] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/local/lib",
    "/usr/lib",
];
/// The maximum depth of nested includes.
const DEPTH_MAX: usize = 8;

/// The directories, in search order.
pub(super) fn directories() -> Vec<PathBuf> {
    let mut directories = vec![];
    for file in [CONFIGURATION, FILES[1]] {
        read(Path::new(file), 0, &mut directories);
    }
    directories.extend(OWN.map(PathBuf::from));
    directories
}

/// ldconfig(8): a directory per line, `include PATTERN`, and comments; musl
/// separates directories by colons or newlines.
fn read(file: &Path, depth: usize, directories: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix("include ") {
            Some(pattern) if depth < DEPTH_MAX => {
                let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern.trim());
                for file in matching(&pattern) {
                    read(&file, depth + 1, directories);
                }
            }
            Some(_) => {}
            None => {
                let paths = line.split(':').map(PathBuf::from);
                directories.extend(paths.filter(|path| path.is_absolute()));
            }
        }
    }
}

/// The files that match a pattern with at most one `*`, in its last name.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((start, end)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let entries = pattern.parent().and_then(|directory| fs::read_dir(directory).ok());
    let mut files: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    });
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_includes_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("ld.so.conf", "include conf.d/*.conf # all\n/opt/lib\nrelative\ninclude ld.so.conf\n");
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        file("conf.d/b.conf", "/b\n# nothing\n");
        file("conf.d/a.conf", "/a:/a2\n");
        file("conf.d/c.txt", "/c\n");
        let mut found = vec![];
        read(&dir.path().join("ld.so.conf"), DEPTH_MAX - 1, &mut found);
        assert_eq!(found, ["/a", "/a2", "/b", "/opt/lib", "/opt/lib"].map(PathBuf::from));
    }
}
