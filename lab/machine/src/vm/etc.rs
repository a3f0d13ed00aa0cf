//! Default files of /etc in a guest with a shell or a command, the same on every
//! machine.
//!
//! Reading: passwd(5), nsswitch.conf(5), hosts(5).

use std::path::Path;

use super::initramfs::Initramfs;

const GENERATED: [(&str, &str); 5] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("/etc/resolv.conf", ""),
];
/// Files that are copied from this machine: names of protocols and ports.
const NAMES: [&str; 3] = ["/etc/protocols", "/etc/services", "/etc/ethertypes"];
/// Directories that programs expect.
const EMPTY: [(&str, u32); 7] = [
    ("/root", 0o700),
    ("/run/lock", 0o1777),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/log/nginx", 0o755),
    ("/var/lib/nginx", 0o755),
    ("/var/tmp", 0o1777),
];

/// Adds the files that the root file system does not have yet.
pub(super) fn add(root: &mut Initramfs) {
    for (path, text) in GENERATED {
        if !root.has(path) {
            root.file(path, 0o644, text.as_bytes().to_vec());
        }
    }
    for path in NAMES {
        // Ignored: without them programs show numbers instead of names.
        let _ = root.host_file(Path::new(path));
    }
    if !root.has("/var/run") {
        root.link("/var/run", "/run");
    }
    for (path, mode) in EMPTY {
        root.directory(path, mode);
    }
}
