//! A command, and what it may do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The directory whose files are brought back: `$OUT`.
pub const OUT: &str = "/run/out";
/// The file that becomes the command's standard input in a guest.
pub const STDIN: &str = "/stdin";
/// The search path of a command's programs, to which those of `--with` are added.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much a command may print, in bytes.
pub const OUTPUT_MAX: u64 = 64 << 20;
/// How much may be brought back from `$OUT`: bytes, and files and directories.
pub const FILES_SIZE_MAX: u64 = 64 << 20;
/// The maximum number of files and directories in `$OUT`.
pub const FILES_MAX: usize = 10_000;

/// A command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOrder {
    /// The program's absolute path.
    pub program: PathBuf,
    /// Its arguments; the first one is the name that was typed.
    pub arguments: Vec<OsString>,
    /// Its environment, all of it.
    pub environment: Vec<(OsString, OsString)>,
    /// The directory to start in, if it can be entered.
    pub directory: PathBuf,
    /// A file to read; otherwise standard input is empty.
    pub stdin: Option<PathBuf>,
    /// How long it may run, by the clock that it sees.
    pub limit: Duration,
    /// How much it may print, in bytes.
    pub output_max: u64,
    /// Whether the files in [`OUT`] are brought back.
    pub files: bool,
}

impl ExecOrder {
    /// Adds the directories of programs that were named, and `last`, to the command's
    /// PATH, unless that was given by the user.
    pub(crate) fn complete_path(&mut self, directories: &[PathBuf], last: Option<&str>) {
        let is_own = |(name, path): &&mut (OsString, OsString)| name == "PATH" && path == PATH;
        let Some((_, path)) = self.environment.iter_mut().find(is_own) else { return };
        let own: Vec<_> = std::env::split_paths(PATH).collect();
        let more = directories.iter().filter(|directory| !own.contains(directory));
        let all = own.iter().chain(more).map(PathBuf::as_path).chain(last.map(Path::new));
        *path = std::env::join_paths(all).unwrap_or_else(|_| OsString::from(PATH));
    }
}
