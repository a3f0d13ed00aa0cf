//! The surroundings of a person in a confined shell: a working directory, a home,
//! and an environment that refers to nothing outside.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

/// A directory that everybody may write to.
const PRIVATE: &str = "/tmp";

/// Variables that name services and directories outside of the shell's namespaces.
const OUTSIDE: [&str; 6] =
    ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "TMPDIR", "WAYLAND_DISPLAY", "DISPLAY"];

/// The initial surroundings of a confined shell.
#[derive(Debug)]
pub(super) struct Belongings {
    /// A replacement for the current directory, if that is out of reach.
    directory: Option<&'static Path>,
    /// A replacement for the user's home, if that may not be read.
    home: Option<&'static Path>,
}

impl Belongings {
    /// Looks at what is reachable in this mount namespace and with these ids.
    pub(super) fn look() -> Self {
        let may_enter = |place: &Path| access(place, AccessFlags::R_OK | AccessFlags::X_OK).is_ok();
        let here = env::current_dir().ok().filter(|place| may_enter(place) && is_here(place));
        let home = env::var_os("HOME").map(PathBuf::from).filter(|place| may_enter(place));
        let private = Path::new(PRIVATE);
        Self { directory: here.is_none().then_some(private), home: home.is_none().then_some(private) }
    }

    /// Applies them to a shell.
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

    /// The explanation for the person at the shell.
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

/// Whether the current directory is still what its name refers to: another file
/// system may have been mounted over it.
fn is_here(place: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let here = of(Path::new("."));
    here.is_some() && here == of(place)
}
