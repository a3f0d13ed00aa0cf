//! The mount namespace of a worker: the machine's file systems, read-only, and for a
//! shell also writable ones in memory.
//!
//! Reading list: mount_setattr(2); mount_namespaces(7), "Restrictions on mount
//! namespaces": mounts that come from a more privileged mount namespace are locked,
//! so that they can neither be unmounted nor made writable inside.

use std::fs::{self, File};
use std::io;
use std::mem::size_of;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::tmpfs::{Owner, WRAPPERS, bind, cover_run, descriptor, tmpfs};
use faultlab_base::error::{Error, Result};
use faultlab_base::programs;

/// The path of this program for a shell: its own path may contain directories that
/// only the machine's root may enter.
pub(super) const PROGRAM: &str = "/run/.faultlab/faultlab";

/// Makes every mount of this mount namespace read-only, and mounts a /proc of this
/// pid namespace. In that /proc /proc/sys is read-only, except for /proc/sys/net.
pub(super) fn read_only() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("make / private"))?;
    all_read_only().map_err(failed("make / read-only"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The kernel forbids this in a container that covers parts of /proc. Then the
    // container's /proc stays, in which /proc/thread-self is still correct.
    if mount(Some("proc"), "/proc", Some("proc"), flags, none).is_err() {
        set_read_only(Path::new("/proc"), false).map_err(failed("make /proc writable"))?;
    }
    for (part, writable) in [("/proc/sys", false), ("/proc/sys/net", true)] {
        bind(Path::new(part), Path::new(part)).map_err(failed(&format!("bind {part}")))?;
        if writable {
            set_read_only(Path::new("/proc/sys"), true).map_err(failed("make /proc/sys read-only"))?;
        }
    }
    Ok(())
}

/// Mounts writable file systems in memory for a shell or a command: /tmp, /var/tmp
/// and /dev/shm, which are empty, /run with parts of the machine's /run, and a /dev
/// without disks. With `one_id` the user namespace has a single id, so programs
/// cannot change their user. Files and directories at the paths in `keep` stay
/// where they are.
pub(super) fn for_a_person(owner: Owner, one_id: bool, keep: &[PathBuf]) -> Result<()> {
    let kept: Vec<_> = keep.iter().filter_map(|path| Kept::open(path)).collect();
    let program = std::env::current_exe().map_err(failed("find this program"))?;
    let program = File::open(program).map_err(failed("open this program"))?;
    devices(owner).map_err(failed("make /dev"))?;
    cover_run(Some(owner)).map_err(failed("make /run"))?;
    install(&program).map_err(failed(&format!("make {PROGRAM}")))?;
    if one_id {
        wrap_tcpdump().map_err(failed(&format!("make {WRAPPERS}")))?;
    }
    for place in ["/tmp", "/var/tmp"] {
        // Not every system has the second one.
        if Path::new(place).is_dir() {
            tmpfs(Path::new(place), owner, "1777").map_err(failed(&format!("make {place}")))?;
        }
    }
    kept.iter().try_for_each(|kept| kept.put_back(owner))
}

/// The directories that are covered by file systems in memory.
const COVERED: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// A file or a directory below one of [`COVERED`], opened before that is covered.
struct Kept {
    path: PathBuf,
    file: File,
    is_directory: bool,
}

impl Kept {
    /// `None` if it is not below one of [`COVERED`], or cannot be opened: in the
    /// latter case it is missing afterwards.
    fn open(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let is_directory = path.is_dir();
        let is_covered = COVERED.iter().any(|place| path.starts_with(place) && path != Path::new(place));
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let open = || File::options().read(true).custom_flags(flags.bits()).open(&path).ok();
        let file = is_covered.then(open).flatten()?;
        Some(Self { path, file, is_directory })
    }

    /// Bind-mounts it at its old path. Missing parent directories are created for
    /// this owner.
    fn put_back(&self, owner: Owner) -> Result<()> {
        let put = || -> io::Result<()> {
            let parent = self.path.parent().unwrap_or(Path::new("/"));
            let missing: Vec<_> = parent.ancestors().take_while(|directory| !directory.exists()).collect();
            for directory in missing.into_iter().rev() {
                fs::create_dir(directory)?;
                std::os::unix::fs::chown(directory, Some(owner.user), Some(owner.group))?;
            }
            if self.is_directory && !self.path.is_dir() {
                fs::create_dir(&self.path)?;
            } else if !self.is_directory && !self.path.exists() {
                File::create(&self.path)?;
            }
            Ok(bind(&descriptor(&self.file), &self.path)?)
        };
        put().map_err(failed(&format!("keep {}", self.path.display())))
    }
}

fn failed<E: Into<io::Error>>(tried: &str) -> impl FnOnce(E) -> Error {
    move |error| Error::kernel("mount namespace", tried, error)
}

/// Installs this program at [`PROGRAM`]: itself, or a copy if only its owner may
/// execute it.
fn install(program: &File) -> io::Result<()> {
    let everyone = program.metadata()?.permissions().mode() & 0o005 == 0o005;
    let own = descriptor(program);
    if everyone {
        File::create(PROGRAM)?;
        return Ok(bind(&own, Path::new(PROGRAM))?);
    }
    fs::copy(own, PROGRAM)?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))
}

/// Installs a wrapper that makes tcpdump stay root (`-Z root`): by default it
/// switches to the user tcpdump, whose id is not mapped here.
fn wrap_tcpdump() -> io::Result<()> {
    let Some(tcpdump) = programs::named("tcpdump").next() else { return Ok(()) };
    let quoted = tcpdump.to_string_lossy().replace('\'', r"'\''");
    let wrapper = Path::new(WRAPPERS).join("tcpdump");
    fs::write(&wrapper, format!("#!/bin/sh\nexec '{quoted}' -Z root \"$@\"\n"))?;
    fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))
}

/// The device nodes that are kept, besides pts and net/tun. None of them is a disk.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "kmsg"];

/// drivers/net/tun.c: TUN_MINOR, of the misc devices.
const TUN: (u64, u64) = (10, 200);

fn devices(owner: Owner) -> io::Result<()> {
    let dev = Path::new("/dev");
    let before = File::open(dev)?;
    let of_machine = descriptor(&before);
    // Without MS_NODEV, which would disable the node for tun below.
    let options = format!("mode=755,uid={},gid={}", owner.user, owner.group);
    mount(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options.as_str()))?;
    for name in DEVICES {
        let (old, new) = (of_machine.join(name), dev.join(name));
        if let Ok(target) = fs::read_link(&old) {
            symlink(target, new)?;
        } else if old.exists() {
            File::create(&new)?;
            bind(&old, &new)?;
        }
    }
    fs::create_dir(dev.join("net"))?;
    let (old, tun) = (of_machine.join("net/tun"), dev.join("net/tun"));
    if old.exists() {
        let everyone = Mode::from_bits_truncate(0o666);
        // Some machines let only root open net/tun. A node with mode 666 is safe
        // here: an interface is created in the network namespace of the caller.
        // mknod(2) of a device needs the machine's root.
        if mknod(&tun, SFlag::S_IFCHR, everyone, makedev(TUN.0, TUN.1)).is_ok() {
            fs::set_permissions(&tun, fs::Permissions::from_mode(0o666))?;
        } else {
            File::create(&tun)?;
            bind(&old, &tun)?;
        }
    }
    fs::create_dir(dev.join("pts"))?;
    if of_machine.join("pts").exists() {
        bind(&of_machine.join("pts"), &dev.join("pts"))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, dev.join(name))?;
    }
    let shm = dev.join("shm");
    fs::create_dir(&shm)?;
    Ok(tmpfs(&shm, owner, "1777")?)
}

/// Makes every mount read-only.
fn all_read_only() -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: a NUL-terminated path, and a structure with its size; the kernel
    // writes to neither.
    #[allow(unsafe_code, reason = "mount_setattr(2) has no wrapper; see SAFETY")]
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        // mount_setattr(2) is new in Linux 5.12. A seccomp profile older than that
        // forbids it.
        Err(Errno::ENOSYS | Errno::EPERM) => each_read_only(),
        Err(errno) => Err(errno.into()),
    }
}

/// As [`all_read_only`], one mount after the other.
fn each_read_only() -> io::Result<()> {
    let all = fs::read("/proc/self/mountinfo")?;
    for place in all.split(|byte| *byte == b'\n').filter_map(mount_point) {
        match set_read_only(&place, true) {
            // Another mount covers this one, so no path leads to it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL | Errno::EACCES) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Makes the mount at this place read-only, or writable.
fn set_read_only(place: &Path, read_only: bool) -> nix::Result<()> {
    let now = statvfs(place)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    flags.set(MsFlags::MS_RDONLY, read_only);
    // Flags that are not repeated would be cleared, which is not allowed in a user
    // namespace.
    for (is, stays) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        flags.set(stays, now.contains(is));
    }
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
}

/// The mount point of a line of /proc/self/mountinfo, proc(5): its fifth field, in
/// which a space is `\040`.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let word = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = vec![];
    let mut rest = word;
    while let [byte, more @ ..] = rest {
        let octal = (*byte == b'\\').then(|| more.get(..3)).flatten();
        let decoded = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        path.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { &more[3..] } else { more };
    }
    Some(std::ffi::OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mount_point_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt 2\")));
        assert_eq!(mount_point(b""), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in r"([a-z0-9\\ ]{0,4}){0,12}") {
            let _ = mount_point(line.as_bytes());
        }
    }
}
