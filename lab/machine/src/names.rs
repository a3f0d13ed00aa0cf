//! Directories below /run in a worker's mount namespace: /run/netns, with the hosts'
//! names for `ip netns`, and the directory of a shell's commands.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::tmpfs::{Owner, bind, cover_run, descriptor, tmpfs};
use faultlab_net::network::Host;

/// Bind-mounts the network namespace of each host at /run/netns/HOST.
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

/// Mounts an empty tmpfs at a directory below /run; creates the directory if needed.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        cover_run(None)?;
        fs::create_dir(directory)?;
    }
    Ok(tmpfs(directory, Owner::ROOT, "755")?)
}
