//! Writes the files that a command left in `$OUT`.

use std::io;
use std::path::Path;

use crate::files::Folder;
use faultlab_machine::exec::answers::OutFile;

/// Writes files and directories below `folder`, without following symbolic links there.
///
/// # Errors
/// If one cannot be written. The error names it.
pub(super) fn write(folder: &Folder, files: &[OutFile]) -> io::Result<()> {
    for file in files {
        match &file.content {
            None => drop(directory(folder, &file.path)?),
            Some((mode, bytes)) => {
                let parent = file.path.parent().unwrap_or(Path::new(""));
                let name = file.path.file_name().unwrap_or_default();
                directory(folder, parent)?.write_bytes(name, bytes, mode & 0o111 != 0)?;
            }
        }
    }
    Ok(())
}

/// Opens a directory below another one, component by component, and creates what is missing.
fn directory(folder: &Folder, path: &Path) -> io::Result<Folder> {
    let mut names = path.iter();
    let mut opened = folder.below(names.next().unwrap_or(".".as_ref()))?;
    for name in names {
        opened = opened.below(name)?;
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn file(path: &str, mode: u32) -> OutFile {
        OutFile { path: path.into(), content: Some((mode, b"new".to_vec())) }
    }

    #[test]
    fn a_tree_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            file("top", 0o644),
            OutFile { path: "a b".into(), content: None },
            OutFile { path: "a b/empty".into(), content: None },
            file("a b/c d", 0o700),
            file("e/f/g", 0o4777),
        ];
        write(&Folder::make(dir.path()).unwrap(), &files).unwrap();
        for name in ["top", "a b/c d", "e/f/g"] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"new", "{name}");
        }
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7111;
        assert_eq!((mode("top"), mode("a b/c d"), mode("e/f/g")), (0, 0o111, 0o111));
        assert!(dir.path().join("a b/empty").is_dir());
    }

    #[test]
    fn no_link_is_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(outside.path(), dir.path().join("directory")).unwrap();
        symlink(&victim, dir.path().join("file")).unwrap();
        let folder = Folder::make(dir.path()).unwrap();
        let error = write(&folder, &[file("directory/victim", 0o644)]).unwrap_err().to_string();
        assert!(error.contains("/directory: "), "{error}");
        write(&folder, &[file("file", 0o644)]).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "new");
    }
}
