//! What a person in a confined shell has of their own: a directory to be in, a
//! home, an environment that leads nowhere else.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

/// Where everybody may write.
const PRIVATE: &str = "/tmp";

/// Variables that name services and directories outside, which are not here.
const OUTSIDE: [&str; 6] =
    ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "TMPDIR", "WAYLAND_DISPLAY", "DISPLAY"];

/// What a confined shell begins with.
#[derive(Debug)]
pub(super) struct Belongings {
    /// Another directory than the current one, which is not here.
    directory: Option<&'static Path>,
    /// Another home than the user's, which may not be read.
    home: Option<&'static Path>,
}

impl Belongings {
    /// CaptureOptions at what there is in this mount namespace and for these ids.
    pub(super) fn look() -> Self {
        let may_enter = |place: &Path| access(place, AccessFlags::R_OK | AccessFlags::X_OK).is_ok();
        let here = env::current_dir().ok().filter(|place| may_enter(place) && is_here(place));
        let home = env::var_os("HOME").map(PathBuf::from).filter(|place| may_enter(place));
        let private = Path::new(PRIVATE);
        Self { directory: here.is_none().then_some(private), home: home.is_none().then_some(private) }
    }

    /// Gives them to a shell.
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

    /// What a person is told of them.
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

/// Whether the current directory is what has its name: another file system may
/// be in front of it by now.
fn is_here(place: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let here = of(Path::new("."));
    here.is_some() && here == of(place)
}
