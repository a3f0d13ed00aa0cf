//! The tools of a shell or a command in a guest: links to its busybox.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::protocol::{APPLETS, BUSYBOX};
use faultlab_base::error::{Error, Result};

/// Installs busybox's tools: a link for each of its applets.
pub(super) fn install() -> Result<()> {
    let failed = |e| Error::kernel("init", format!("{BUSYBOX} --install"), e);
    fs::create_dir_all(APPLETS).map_err(failed)?;
    let mut command = Command::new(Path::new(BUSYBOX));
    command.args(["--install", "-s", APPLETS]).stdin(Stdio::null());
    let status = command.status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Error::Lab(format!("init: {BUSYBOX} --install: {status}"))) }
}
