//! The tools of a shell in a guest: links to its busybox.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::protocol::BUSYBOX;
use faultlab_base::error::{Error, Result};

/// The directory of the links.
const LINKS: &str = "/bin";

/// Installs busybox's tools for the guest's shell: a link for each of its applets.
pub(super) fn install() -> Result<()> {
    let failed = |e| Error::kernel("init", format!("{BUSYBOX} --install"), e);
    let mut command = Command::new(Path::new(BUSYBOX));
    command.args(["--install", "-s", LINKS]).stdin(Stdio::null());
    let status = command.status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Error::Lab(format!("init: {BUSYBOX} --install: {status}"))) }
}
