//! A command and its limits.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The directory `$OUT`: with `--out` its files are sent back.
pub const OUT: &str = "/run/out";
/// The file that becomes the command's standard input in a guest.
pub const STDIN: &str = "/stdin";
/// The search path of a command's programs, to which those of `--with` are added.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The maximum output of a command, in bytes.
pub const OUTPUT_MAX: u64 = 64 << 20;
/// The maximum size of all files in `$OUT` that are sent back, in bytes.
pub const FILES_SIZE_MAX: u64 = 64 << 20;
/// The maximum number of files and directories in `$OUT` that are sent back.
pub const FILES_MAX: usize = 10_000;

/// A command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOrder {
    /// The program's absolute path.
    pub program: PathBuf,
    /// Its arguments; the first one is `argv[0]`, the name as the user gave it.
    pub arguments: Vec<OsString>,
    /// Its complete environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The working directory, if it exists there.
    pub directory: PathBuf,
    /// The file for its standard input; `None` for /dev/null.
    pub stdin: Option<PathBuf>,
    /// How long it may run, on the clock of the kernel that runs it.
    pub limit: Duration,
    /// The maximum output, in bytes.
    pub output_max: u64,
    /// Whether the files in [`OUT`] are sent back.
    pub send_files: bool,
}

impl ExecOrder {
    /// Appends `directories` and `last` to the command's PATH, unless the user has set
    /// PATH.
    pub(crate) fn complete_path(&mut self, directories: &[PathBuf], last: Option<&str>) {
        let is_own = |(name, path): &&mut (OsString, OsString)| name == "PATH" && path == PATH;
        let Some((_, path)) = self.environment.iter_mut().find(is_own) else { return };
        let own: Vec<_> = std::env::split_paths(PATH).collect();
        let more = directories.iter().filter(|directory| !own.contains(directory));
        let all = own.iter().chain(more).map(PathBuf::as_path).chain(last.map(Path::new));
        *path = std::env::join_paths(all).unwrap_or_else(|_| OsString::from(PATH));
    }
}
