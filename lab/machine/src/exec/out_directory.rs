//! Sends the files that a command has left in `$OUT`.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::frames::{CONTENT, DIRECTORY, FILE};
use super::order::{FILES_MAX, FILES_SIZE_MAX};
use super::out_path::beneath;
use crate::protocol::Frame;
use faultlab_base::error::{Error, Result};

/// The maximum size of a message with file content.
const PIECE: usize = 256 << 10;

/// Sends the directories and regular files below a directory. Links are not followed.
/// Returns how many entries were left out.
pub(super) fn send(top: &Path, send: &mut dyn FnMut(&Frame) -> Result<()>) -> Result<u64> {
    let (mut left_out, mut count, mut size) = (0, 0, 0);
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let relative = path.strip_prefix(top).unwrap_or(&path).as_os_str().as_bytes().to_owned();
            count += 1;
            // ENAMETOOLONG: the path with that of `$OUT` is too long.
            let Ok(found) = fs::symlink_metadata(&path) else {
                left_out += 1;
                continue;
            };
            let is_sent = (found.is_dir() || found.is_file()) && beneath(&relative).is_some();
            if count > FILES_MAX || !is_sent {
                left_out += 1;
            } else if found.is_dir() {
                send(&Frame::new(DIRECTORY, relative))?;
                directories.push(path);
            } else if size + found.len() > FILES_SIZE_MAX {
                left_out += 1;
            } else {
                size += found.len();
                file(&path, &relative, &found, send)?;
            }
        }
    }
    Ok(left_out)
}

fn file(
    path: &Path,
    relative: &[u8],
    found: &Metadata,
    send: &mut dyn FnMut(&Frame) -> Result<()>,
) -> Result<()> {
    let failed = |e| Error::kernel(path.display().to_string(), "read it", e);
    let mode = found.permissions().mode() & 0o777;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path).map_err(failed)?;
    send(&Frame::new(FILE, [&mode.to_le_bytes(), relative].concat()))?;
    // Not more than the size that was counted.
    let mut file = file.take(found.len());
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(failed)? {
            0 => return Ok(()),
            length => send(&Frame::new(CONTENT, &piece[..length]))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::super::answers::ExecAnswers;
    use super::super::order::ExecOrder;
    use super::super::out_path::DEPTH_MAX;
    use super::*;

    /// Makes directories, each in the one before it, at any length of the path.
    fn nested(top: &Path, name: &str, depth: usize) {
        let mut directory = File::open(top).unwrap();
        for _ in 0..depth {
            let below = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
            fs::create_dir(&below).unwrap();
            directory = File::open(below).unwrap();
        }
    }

    /// Sends a directory to a receiver; returns how many files and directories arrived,
    /// and how many were left out.
    fn sent(top: &Path) -> (usize, u64) {
        let mut answers = ExecAnswers::new(&ExecOrder {
            program: "/bin/true".into(),
            arguments: vec![],
            environment: vec![],
            directory: "/".into(),
            stdin: None,
            limit: Duration::ZERO,
            output_max: 0,
            send_files: true,
        });
        let left_out = send(top, &mut |frame| answers.take(frame).map(drop)).unwrap();
        (answers.files.len(), left_out)
    }

    #[test]
    fn what_the_receiver_would_refuse_is_left_out() {
        let deep = tempfile::tempdir().unwrap();
        fs::write(deep.path().join("file"), "x").unwrap();
        nested(deep.path(), "d", DEPTH_MAX);
        assert_eq!(sent(deep.path()), (1 + DEPTH_MAX, 0));
        nested(&deep.path().join("d/d"), "e", DEPTH_MAX);
        assert_eq!(sent(deep.path()), (1 + DEPTH_MAX + DEPTH_MAX - 2, 1));
        // 16 names of 255 bytes and their slashes are PATH_MAX - 1.
        let long = tempfile::tempdir().unwrap();
        nested(long.path(), &"d".repeat(255), 17);
        assert_eq!(sent(long.path()), (15, 1));
    }
}
