//! The sysctls of one network namespace.
//!
//! Keys are written as for sysctl(8): `net.ipv4.conf.eth0.rp_filter`, with a `/`
//! for a dot inside a name (`net.ipv4.conf.eth0/100.rp_filter`).
//!
//! /proc/sys/net shows the namespace of the thread that opens a file, but a few
//! of its files belong to the whole kernel. Those, and everything outside `net.`,
//! are refused: nothing global is ever written, except by the init of a guest,
//! whose kernel is the lab's ([`set_kernel_wide`]).

mod absent;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use self::absent::{absent, absent_kernel_wide};
use crate::namespace::Namespace;
use crate::topology::Sysctl;
use faultlab_base::error::{Error, Result};

/// Visible in every namespace, but global to the kernel. Since 5.13 they are
/// read-only in a child namespace; before, root could write them there:
/// net/netfilter/nf_conntrack_standalone.c, net/ipv4/sysctl_net_ipv4.c.
const GLOBAL: [&str; 5] = [
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_expect_max",
    "net.nf_conntrack_max",
    "net.ipv4.tcp_allowed_congestion_control",
];

/// Whether this process is the init of its own machine.
static OWN_KERNEL: AtomicBool = AtomicBool::new(false);

/// Lets [`pin`] and [`set`] write a global key that the namespace lacks. On old
/// kernels net.ipv4.tcp_timestamps and net.ipv4.tcp_tw_recycle are global. Only
/// for the init of a guest.
pub fn own_the_kernel() {
    OWN_KERNEL.store(true, Ordering::Relaxed);
}

/// Writes a global key, if this process owns the kernel. Outside of `enter` the
/// thread is in the initial namespace.
fn write_global(path: &Path, value: &str) -> Option<io::Result<()>> {
    (OWN_KERNEL.load(Ordering::Relaxed) && path.exists()).then(|| fs::write(path, value))
}

/// A global value; dropping this restores the old one.
#[derive(Debug)]
#[must_use = "the old value comes back when it is dropped"]
pub struct KernelSysctl {
    path: PathBuf,
    before: String,
}

impl Drop for KernelSysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            faultlab_base::terminal::say(&format!("{} = {}: {error}", self.path.display(), self.before));
        }
    }
}

/// Writes a global key, reads it back, and restores the old value when the guard
/// is dropped. Only in the init of a guest, and outside of [`Namespace::enter`].
///
/// # Errors
/// [`Error::Lab`] if this process does not own the kernel; if there is no such key,
/// [`Error::Missing`], or [`Error::Lab`] as for [`set`]; EINVAL if the kernel refuses the value, or a different
/// value is read back.
pub fn set_kernel_wide(key: &str, value: &str) -> Result<KernelSysctl> {
    const PLACE: &str = "the kernel";
    let path = path_of(key)?;
    if !OWN_KERNEL.load(Ordering::Relaxed) {
        return Err(whole(key));
    }
    let failed = |source| Error::kernel(PLACE, format!("write {key} = {value}"), source);
    let read = || fs::read_to_string(&path).map(|text| words(&text));
    let before = read().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => absent_kernel_wide(PLACE, key, &path),
        _ => Error::kernel(PLACE, format!("read {key}"), source),
    })?;
    fs::write(&path, value).map_err(failed)?;
    let guard = KernelSysctl { path: path.clone(), before };
    let kept = read().map_err(failed)?;
    if kept == words(value) {
        Ok(guard)
    } else {
        Err(failed(io::Error::other(format!("it reads back as {kept}"))))
    }
}

/// Writes `value` and reads it back, to verify that it took effect.
///
/// Spaces and tabs between the numbers of a sysctl such as `net.ipv4.tcp_rmem` do
/// not matter. A write-only file (`net.ipv4.route.flush`) is not read back.
///
/// # Errors
/// [`Error::Missing`] if the namespace has neither the key nor others of its feature;
/// [`Error::Lab`] if it has others, so that the key is wrong or needs
/// [`set_where_known`], or if the key is not namespaced; EINVAL if the kernel refuses the value, EACCES or EPERM if
/// it may not be written here. Also if a different value is read back, because
/// the kernel clamped, rounded or truncated it.
pub fn set(namespace: &Namespace, key: &str, value: &str) -> Result<()> {
    let path = path_of(key)?;
    if GLOBAL.contains(&key) {
        return Err(whole(key));
    }
    let failed = |source| Error::kernel(namespace.name(), format!("write {key} = {value}"), source);
    if !namespace.enter(|| path.exists())
        && let Some(written) = write_global(&path, value)
    {
        return written.map_err(failed);
    }
    let open = || OpenOptions::new().write(true).open(&path);
    let file = namespace.enter(open).map_err(|e| not_opened(namespace, key, &path, "write", e));
    let mut file = file?;
    namespace.enter(|| {
        // One write(): a second one would be a second value. A short write shows
        // up in the value that is read back.
        match file.write(value.as_bytes()) {
            Ok(_) => {}
            // tcp_congestion_control says so.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::missing(
                    format!("{value} for {key}"),
                    "it may be a module that is not loaded",
                ));
            }
            Err(e) => return Err(failed(e)),
        }
        if file.metadata().map_err(failed)?.permissions().mode() & 0o444 == 0 {
            return Ok(());
        }
        let kept = words(&fs::read_to_string(&path).map_err(failed)?);
        if kept == words(value) {
            Ok(())
        } else {
            Err(failed(io::Error::other(format!("it reads back as {kept}"))))
        }
    })
}

/// Writes the pinned sysctls of a node, entering its namespace once.
///
/// A value that is already in force need not be writable; an optional key need
/// not exist.
///
/// # Errors
/// As [`set`], except that nothing is read back if the write succeeded.
pub fn pin(namespace: &Namespace, pins: &[Sysctl]) -> Result<()> {
    if let Some(pin) = pins.iter().find(|pin| GLOBAL.contains(&pin.key.as_str())) {
        return Err(whole(&pin.key));
    }
    let paths = pins.iter().map(|pin| path_of(&pin.key)).collect::<Result<Vec<_>>>()?;
    let mut elsewhere = vec![];
    let written = namespace.enter(|| {
        for (pin, path) in pins.iter().zip(&paths) {
            let file = OpenOptions::new().write(true).open(path);
            let result = file.and_then(|mut file| file.write(pin.value.as_bytes()));
            let already = || fs::read_to_string(path).is_ok_and(|now| words(&now) == words(&pin.value));
            match result {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => elsewhere.push((pin, path, e)),
                Err(_) if already() => {}
                Err(e) => return Err((pin, path, e)),
            }
        }
        Ok(())
    });
    let refused = |(pin, path, source): (&Sysctl, &PathBuf, io::Error)| {
        not_opened(namespace, &pin.key, path, "write", source)
    };
    written.map_err(refused)?;
    for (pin, path, source) in elsewhere {
        match write_global(path, &pin.value) {
            Some(written) => written.map_err(|e| refused((pin, path, e)))?,
            None if pin.optional => {}
            None => return Err(refused((pin, path, source))),
        }
    }
    Ok(())
}

/// Like [`set`], but does nothing if the namespace lacks the key.
///
/// # Errors
/// As [`set`], except for a missing key.
pub fn set_where_known(namespace: &Namespace, key: &str, value: &str) -> Result<()> {
    let is_global = || OWN_KERNEL.load(Ordering::Relaxed) && path_of(key).is_ok_and(|path| path.exists());
    if !exists(namespace, key)? && !is_global() {
        return Ok(());
    }
    match set(namespace, key, value) {
        Err(Error::Missing(_)) => Ok(()),
        done => done,
    }
}

/// Reads the value, with a single space between its words.
///
/// # Errors
/// As for [`set`] if the namespace has no such key; [`Error::Lab`] for a key outside
/// `net.`; if the file may not be read.
pub fn get(namespace: &Namespace, key: &str) -> Result<String> {
    let path = path_of(key)?;
    namespace
        .enter(|| fs::read_to_string(&path))
        .map(|text| words(&text))
        .map_err(|source| not_opened(namespace, key, &path, "read", source))
}

/// Whether the namespace has such a key.
///
/// # Errors
/// [`Error::Lab`] for a key outside `net.`; if the file cannot be looked up.
pub fn exists(namespace: &Namespace, key: &str) -> Result<bool> {
    let path = path_of(key)?;
    namespace
        .enter(|| path.try_exists())
        .map_err(|source| Error::kernel(namespace.name(), format!("look up {key}"), source))
}

/// Refuses a key that is global to the kernel.
fn whole(key: &str) -> Error {
    Error::Lab(format!("{key} belongs to the whole kernel; it is never written from a namespace"))
}

fn not_opened(namespace: &Namespace, key: &str, path: &Path, tried: &str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        return absent(namespace, key, path);
    }
    Error::kernel(namespace.name(), format!("{tried} {key}"), source)
}

/// The file under /proc/sys of a key under `net.`.
fn path_of(key: &str) -> Result<PathBuf> {
    let swapped: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let plain = swapped.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    if !plain || !swapped.starts_with("net/") {
        return Err(Error::Lab(format!("{key:?} is not a sysctl of a network namespace (net.*)")));
    }
    Ok(Path::new("/proc/sys").join(swapped))
}

/// The key of an interface's setting: `net.ipv6.conf`, `eth0.100` and
/// `disable_ipv6` make `net.ipv6.conf.eth0/100.disable_ipv6`.
pub(crate) fn of_interface(under: &str, interface: &str, setting: &str) -> String {
    format!("{under}.{}.{setting}", interface.replace('.', "/"))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_paths() {
        let path = path_of("net.ipv4.conf.eth0/100.rp_filter").expect("a key");
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/conf/eth0.100/rp_filter"));
        assert_eq!(
            of_interface("net.ipv4.conf", "eth0.100", "rp_filter"),
            "net.ipv4.conf.eth0/100.rp_filter"
        );
    }

    #[test]
    fn other_keys_are_refused() {
        for key in
            ["", "net", "net.", "kernel.panic", "vm.swappiness", "network.x", "net..x", "net.//.kernel.panic"]
        {
            assert!(matches!(path_of(key), Err(Error::Lab(_))), "{key:?}");
        }
    }

    #[test]
    fn the_kernel_is_not_a_hosts_to_set() {
        for key in GLOBAL {
            let refused = set_kernel_wide(key, "1").expect_err("this is no guest");
            assert!(matches!(refused, Error::Lab(_)), "{refused}");
        }
    }

    #[test]
    fn white_space_does_not_matter() {
        assert_eq!(words("4096\t131072\t6291456\n"), words("4096 131072 6291456"));
    }

    proptest! {
        #[test]
        fn no_key_leaves_net(key in "(net)?[./a-z]{0,20}") {
            if let Ok(path) = path_of(&key) {
                prop_assert!(path.starts_with("/proc/sys/net"));
                prop_assert!(path.components().all(|part| part != std::path::Component::ParentDir));
            }
        }
    }
}
