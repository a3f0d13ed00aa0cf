//! The tools of a shell in a guest: the static busybox of this machine, and
//! those of this machine's own that it has not, or not whole.

use super::elf::{self, Executable};
use super::initramfs::Initramfs;
use crate::protocol::BUSYBOX;
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// What this machine may have, and where the guest finds it first. busybox's
/// shell would start busybox's `ip`, wherever another is.
const OWN: [&str; 9] = ["bash", "ip", "ss", "tc", "bridge", "nft", "conntrack", "ethtool", "tcpdump"];
const OWN_TOOLS: &str = "/usr/local/bin";

/// Puts the tools into a guest's root file system.
///
/// # Errors
/// [`Error::Missing`] without a static busybox.
pub(super) fn add(root: &mut Initramfs) -> Result<()> {
    root.file(BUSYBOX, 0o755, busybox()?);
    for name in OWN {
        // A guest can do without any of them, and not with another C library than
        // its init's.
        let own = programs::named(name).filter(|program| !programs::is_busybox(program));
        let mut found = own.filter_map(|program| Executable::at(&program).ok());
        if let Some(tool) = found.find(|tool| root.fits(tool)) {
            root.program(&format!("{OWN_TOOLS}/{name}"), &tool);
        }
    }
    Ok(())
}

/// Reads a static busybox from where PATH leads.
///
/// # Errors
/// [`Error::Missing`] where there is none.
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
