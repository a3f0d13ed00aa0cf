//! The working directory, the home directory and the environment of a confined
//! shell.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

/// The replacement for a directory that is not accessible.
const PRIVATE: &str = "/tmp";

/// Variables that are removed: they name sockets, displays and directories outside
/// of the shell's namespaces.
const OUTSIDE: [&str; 6] =
    ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "TMPDIR", "WAYLAND_DISPLAY", "DISPLAY"];

/// What a confined shell starts with instead of what its user has.
#[derive(Debug)]
pub(super) struct Belongings {
    /// The replacement for the current directory, if that is not accessible or
    /// another file system covers it.
    directory: Option<&'static Path>,
    /// The replacement for the user's home directory, if that is not accessible.
    home: Option<&'static Path>,
}

impl Belongings {
    /// Checks which directories are accessible in this mount namespace and with
    /// these ids.
    pub(super) fn look() -> Self {
        let may_enter = |place: &Path| access(place, AccessFlags::R_OK | AccessFlags::X_OK).is_ok();
        let here = env::current_dir().ok().filter(|place| may_enter(place) && is_here(place));
        let home = env::var_os("HOME").map(PathBuf::from).filter(|place| may_enter(place));
        let private = Path::new(PRIVATE);
        Self { directory: here.is_none().then_some(private), home: home.is_none().then_some(private) }
    }

    /// Applies the replacements to the command that starts a shell.
    pub(super) fn give(&self, command: &mut Command) {
        for variable in OUTSIDE {
            command.env_remove(variable);
        }
        if let Some(directory) = self.directory {
            command.current_dir(directory).env_remove("PWD").env_remove("OLDPWD");
        }
        if let Some(home) = self.home {
            command.env("HOME", home);
        }
    }

    /// The explanation that is printed before the first prompt.
    pub(super) fn told(&self) -> String {
        let mut told =
            "This machine's files are read-only here; /tmp and /run are yours and end with the shell."
                .to_owned();
        match (self.directory, self.home) {
            (None, None) => {}
            (Some(_), None) => told += " The directory you came from is out of reach: you are in /tmp.",
            (None, Some(_)) => told += " What only root may read is out of reach: your home is /tmp.",
            (Some(_), Some(_)) => {
                told += " What only root may read is out of reach: you are in /tmp, and it is your home.";
            }
        }
        told
    }
}

/// Whether `place` still refers to the current directory: another file system may
/// have been mounted over it.
fn is_here(place: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let here = of(Path::new("."));
    here.is_some() && here == of(place)
}
