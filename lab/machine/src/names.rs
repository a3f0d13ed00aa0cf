//! Names below /run that only one worker and its shell see: the hosts' names for
//! `ip netns`, and a directory for the commands on a shell's PATH.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::tmpfs::{Owner, bind, cover_run, descriptor, tmpfs};
use faultlab_net::network::Host;

/// Gives the hosts the names that `ip netns` looks for.
pub(super) fn name(hosts: &[Host]) -> io::Result<()> {
    let names = Path::new("/run/netns");
    make(names)?;
    for host in hosts {
        let file = names.join(host.name());
        File::create(&file)?;
        bind(&descriptor(host.namespace()), &file)?;
    }
    Ok(())
}

/// Makes an empty directory below /run, on a tmpfs of this mount namespace.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        cover_run(None)?;
        fs::create_dir(directory)?;
    }
    Ok(tmpfs(directory, Owner::ROOT, "755")?)
}
