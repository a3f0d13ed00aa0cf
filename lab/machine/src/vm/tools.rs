//! The tools in a guest with a shell or a command: programs of this machine, and a
//! static busybox for those that it lacks.

use super::brought::{Brought, program_named};
use super::elf;
use crate::protocol::BUSYBOX;
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// The programs of this machine that are copied if they exist: shells, tools for
/// networks, processes and files, and coreutils.
const OWN: &str = "\
    sh bash ip ss tc bridge nft conntrack ethtool tcpdump ping sysctl ps pgrep pkill nsenter unshare mount umount \
    flock setsid lsns hostname getent grep egrep fgrep sed awk find xargs which cmp diff kill \
    [ b2sum base32 base64 basename cat chgrp chmod chown chroot cksum comm cp csplit cut date dd df dir dirname du \
    echo env expand expr factor false fmt fold groups head id install join link ln logname ls md5sum mkdir mkfifo \
    mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pr printenv printf pwd readlink realpath rm rmdir \
    seq sha1sum sha256sum sha512sum shred shuf sleep sort split stat stty sum sync tac tail tee test timeout touch \
    tr true truncate tsort tty uname unexpand uniq unlink uptime users vdir wc who whoami yes";

/// Programs that are always busybox's: they read the text files of `module_files`, while
/// kmod reads binary ones, which the guest does not have.
const OF_BUSYBOX: [&str; 5] = ["modprobe", "lsmod", "insmod", "rmmod", "modinfo"];

/// Adds the tools to a guest's root file system.
///
/// # Errors
/// [`Error::Missing`] without a static busybox.
pub(super) fn add(brought: &mut Brought<'_>) -> Result<()> {
    let busybox = busybox()?;
    for name in OWN.split_whitespace() {
        // Errors are ignored: busybox replaces the program.
        if let Ok(Some(program)) = program_named(name)
            && !programs::is_busybox(&program)
        {
            let _ = brought.program(&program);
        }
    }
    let root = &mut *brought.root;
    root.file(BUSYBOX, 0o755, busybox);
    if !root.has("/bin/sh") {
        root.link("/bin/sh", BUSYBOX);
    }
    for name in OF_BUSYBOX {
        root.link(&format!("/sbin/{name}"), BUSYBOX);
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
            "a static busybox, for the tools in the guest",
            "install the package busybox-static (Debian, Ubuntu, Alpine) or busybox (Fedora)",
        )
    })
}
