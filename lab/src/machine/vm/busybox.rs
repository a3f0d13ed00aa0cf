//! The tools of a shell in a guest: the static busybox of this machine.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{AccessFlags, access};

use super::elf;
use crate::error::{Error, Result};

/// Where the guest has it, and its tools.
pub const PATH: &str = "/bin/busybox";
const TOOLS: &str = "/bin";

/// Reads a static busybox from where PATH leads.
///
/// # Errors
/// [`Error::Missing`] where there is none.
pub fn find() -> Result<Vec<u8>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).map(|dir| dir.join("busybox"));
    let found = programs
        .filter(|program| access(program, AccessFlags::X_OK).is_ok())
        .filter_map(|program| std::fs::read(program).ok())
        .find(|bytes| elf::is_static(bytes));
    found.ok_or_else(|| {
        Error::missing(
            "a static busybox, for the shell in the guest",
            "install the package busybox-static (Debian, Ubuntu) or busybox (Alpine, Fedora)",
        )
    })
}

/// Gives the guest's shell its tools: links by the names that busybox knows.
pub(super) fn install() -> Result<()> {
    let failed = |e| Error::kernel("init", format!("{PATH} --install"), e);
    let mut command = Command::new(Path::new(PATH));
    command.args(["--install", "-s", TOOLS]).stdin(Stdio::null());
    let status = command.status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Error::Lab(format!("init: {PATH} --install: {status}"))) }
}
