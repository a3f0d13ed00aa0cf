//! The tools of a shell in a guest: this machine's static busybox, and programs of
//! this machine that busybox lacks or implements only in part.

use super::elf::{self, Executable};
use super::initramfs::Initramfs;
use crate::protocol::BUSYBOX;
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// Programs to copy from this machine, found before busybox's. busybox's shell
/// would start busybox's `ip`, even if there is another one.
const OWN: [&str; 9] = ["bash", "ip", "ss", "tc", "bridge", "nft", "conntrack", "ethtool", "tcpdump"];
const OWN_TOOLS: &str = "/usr/local/bin";

/// Adds the tools to a guest's root file system.
///
/// # Errors
/// [`Error::Missing`] without a static busybox.
pub(super) fn add(root: &mut Initramfs) -> Result<()> {
    root.file(BUSYBOX, 0o755, busybox()?);
    for name in OWN {
        // A guest can do without any of them, but cannot run one with a C library
        // other than init's.
        let own = programs::named(name).filter(|program| !programs::is_busybox(program));
        let mut found = own.filter_map(|program| Executable::at(&program).ok());
        if let Some(tool) = found.find(|tool| root.fits(tool)) {
            root.program(&format!("{OWN_TOOLS}/{name}"), &tool);
        }
    }
    Ok(())
}

/// Reads a static busybox found on PATH.
///
/// # Errors
/// [`Error::Missing`] if there is none.
pub fn busybox() -> Result<Vec<u8>> {
    let found = programs::BUSYBOX
        .into_iter()
        .flat_map(programs::named)
        .filter_map(|program| std::fs::read(program).ok())
        .find(|bytes| elf::is_static(bytes));
    found.ok_or_else(|| {
        Error::missing(
            "a static busybox, for the shell in the guest",
            "install the package busybox-static (Debian, Ubuntu, Alpine) or busybox (Fedora)",
        )
    })
}
