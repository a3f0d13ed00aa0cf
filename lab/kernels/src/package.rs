//! Unpacks a kernel from Debian packages, without dpkg.
//!
//! Reading: deb(5), tar(5). A .deb is an ar archive of `debian-binary`,
//! `control.tar.*` and `data.tar.*`; the last one is a tar archive, compressed with
//! xz or zstd or not at all.
//!
//! Packages are untrusted. Member names become [`BeneathPath`]s before any file is
//! created, and sizes are bounded by [`limits`](super::limits).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::ar;
use super::beneath::{BeneathPath, is_release, quoted};
use super::directory::{Directory, regular_file};
use super::limits::{self, Size};
use faultlab_base::error::{Error, Result};

/// The kernel files found in one or more packages.
#[derive(Debug)]
pub(super) struct Contents {
    /// The releases of the images found.
    pub(super) images: BTreeSet<String>,
    /// The releases of the modules found.
    pub(super) modules: BTreeSet<String>,
    left: Left,
}

/// What the packages of a kernel may still unpack to.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// Bytes, unpacked.
    bytes: u64,
    members: u64,
    modules: usize,
}

impl Default for Contents {
    fn default() -> Self {
        let left =
            Left { bytes: limits::UNPACKED_MAX, members: limits::MEMBERS_MAX, modules: limits::MODULES_MAX };
        Self { images: BTreeSet::new(), modules: BTreeSet::new(), left }
    }
}

/// The place of a package's file in an entry of the store.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Image {
        release: String,
    },
    Config,
    Module {
        release: String,
        path: BeneathPath,
    },
    /// modules.builtin and similar lists.
    List {
        path: BeneathPath,
    },
}

impl Place {
    /// Classifies a path of a package's data archive; `None` if the file is not needed.
    ///
    /// # Errors
    /// A clause: it is a kernel's file with an invalid release or name.
    fn of(path: &BeneathPath) -> std::result::Result<Option<Self>, String> {
        let release = |text: &str| {
            let wrong = || format!("is of no kernel: {} is no release", quoted(text.as_bytes()));
            if is_release(text) { Ok(text.to_owned()) } else { Err(wrong()) }
        };
        let names = path.names();
        let usr = usize::from(names[0] == "usr");
        Ok(Some(match &names[usr..] {
            ["boot", name] if name.starts_with("config-") => Self::Config,
            ["boot", name] => match name.strip_prefix("vmlinuz-") {
                Some(of) => Self::Image { release: release(of)? },
                None => return Ok(None),
            },
            ["lib", "modules", of, "vmlinuz"] => Self::Image { release: release(of)? },
            ["lib", "modules", _, "config"] => Self::Config,
            ["lib", "modules", of, rest @ .., name] => {
                let Some(path) = path.without_first(usr + 3) else { return Ok(None) };
                if rest.is_empty() && name.starts_with("modules.builtin") {
                    Self::List { path }
                } else if is_module(name) {
                    Self::Module { release: release(of)?, path }
                } else {
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        }))
    }

    /// Its path in an entry.
    fn target(&self) -> BeneathPath {
        match self {
            Self::Image { .. } => BeneathPath::known("kernel"),
            Self::Config => BeneathPath::known("config"),
            Self::Module { path, .. } | Self::List { path } => path.under("modules"),
        }
    }

    /// Its maximum size, in bytes.
    fn max(&self) -> u64 {
        match self {
            Self::Image { .. } => limits::IMAGE_MAX,
            Self::Module { .. } => limits::MODULE_MAX,
            Self::Config | Self::List { .. } => limits::LIST_MAX,
        }
    }
}

/// Whether a file name is that of a kernel module, compressed or not.
pub(super) fn is_module(name: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| name.ends_with(end))
}

/// Whether an invalid path looks like that of a kernel's file.
fn is_of_kernel(raw: &[u8]) -> bool {
    let has = |part: &[u8]| raw.windows(part.len()).any(|window| window == part);
    has(b"lib/modules/") || has(b"boot/")
}

/// Unpacks the kernel, its modules and its configuration from the package at `deb`
/// into `entry`, and records them in `found`. `read` is called with the number of
/// bytes of the package read so far.
///
/// # Errors
/// One sentence: the file is not a package, is truncated or damaged, has a member
/// with an invalid name or an excessive size; or `entry` could not be written to.
pub(super) fn unpack(
    deb: &Path,
    entry: &Directory,
    found: &mut Contents,
    read: &mut dyn FnMut(u64),
) -> Result<()> {
    let name = deb.display();
    let says = |why: String| Error::Lab(format!("{name}: {why}"));
    let mut file =
        regular_file(deb).map_err(|e| Error::kernel("kernel package", format!("read {name}"), e))?;
    let data = ar::find_data(&mut file).map_err(says)?;
    let counted = Counted { inner: BufReader::new(file).take(data.size), count: 0, read };
    let damaged = |e: io::Error| Error::Lab(format!("{name} is damaged: {e}"));
    let archive: Box<dyn Read + '_> = match data.name.as_str() {
        "data.tar" => Box::new(counted),
        "data.tar.xz" => Box::new(limits::xz(counted)),
        "data.tar.zst" => Box::new(limits::zstd(BufReader::new(counted)).map_err(damaged)?),
        other => {
            let other = ar::shown(other);
            return Err(says(format!("{other} is packed in a way that is not understood (xz and zstd are)")));
        }
    };
    let meter = Meter::new(found.left.bytes);
    let unpacked = read_members(archive, &meter, entry, found);
    found.left.bytes = meter.bytes.get();
    unpacked.map_err(|failed| match (meter.over.take(), failed) {
        (Some(why), _) | (None, Failed::Refused(why)) => says(why),
        (None, Failed::Reading(e)) => damaged(e),
        (None, Failed::Writing(e)) => Error::kernel(entry.path().display().to_string(), "unpack", e),
    })
}

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
    /// A clause: why the package is refused.
    Refused(String),
}

fn read_members(
    archive: impl Read,
    meter: &Meter,
    entry: &Directory,
    found: &mut Contents,
) -> std::result::Result<(), Failed> {
    let mut archive = tar::Archive::new(Metered { inner: archive, meter });
    let mut members = archive.entries().map_err(Failed::Reading)?;
    loop {
        meter.at_headers();
        let Some(member) = members.next() else { return Ok(()) };
        let mut member = member.map_err(Failed::Reading)?;
        let raw = member.path_bytes().into_owned();
        let refused = |why: &str| Failed::Refused(format!("its member {} {why}", quoted(&raw)));
        meter.at_member(&raw);
        found.left.members = found.left.members.checked_sub(1).ok_or_else(|| {
            Failed::Refused(format!("it has more than {} members, which no kernel has", limits::MEMBERS_MAX))
        })?;
        let kind = member.header().entry_type();
        if kind.is_gnu_sparse() {
            return Err(refused("is a sparse file, which no package has"));
        }
        let place = match BeneathPath::parse(&raw) {
            Ok(path) if kind.is_file() => Place::of(&path).map_err(|why| refused(why.as_str()))?,
            Err(why) if kind.is_file() && is_of_kernel(&raw) => return Err(refused(why.as_str())),
            _ => None,
        };
        let Some(place) = place else {
            // Read, so that skipped members count: they are decompressed anyway.
            io::copy(&mut member, &mut io::sink()).map_err(Failed::Reading)?;
            continue;
        };
        if member.size() > place.max() {
            let why = format!("has {} bytes, and may have {}", member.size(), Size(place.max()));
            return Err(refused(why.as_str()));
        }
        if matches!(place, Place::Module { .. } | Place::List { .. }) {
            found.left.modules = found.left.modules.checked_sub(1).ok_or_else(|| {
                Failed::Refused(format!("it has more than {} modules", limits::MODULES_MAX))
            })?;
        }
        let mut to = entry.create(&place.target()).map_err(Failed::Writing)?;
        copy(&mut member, &mut to)?;
        match place {
            Place::Image { release } => found.images.insert(release),
            Place::Module { release, .. } => found.modules.insert(release),
            Place::Config | Place::List { .. } => false,
        };
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::result::Result<(), Failed> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).map_err(Failed::Writing)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failed::Reading(e)),
        }
    }
}

/// Limits what is read of an archive: in all, and of the headers before the next
/// member, which the tar reader keeps in memory.
struct Meter {
    bytes: Cell<u64>,
    headers: Cell<u64>,
    /// The name of the last member, for an error message.
    member: RefCell<Vec<u8>>,
    /// The limit that was exceeded, as a clause.
    over: Cell<Option<String>>,
}

impl Meter {
    fn new(bytes: u64) -> Self {
        Self {
            bytes: Cell::new(bytes),
            headers: Cell::new(u64::MAX),
            member: RefCell::default(),
            over: Cell::new(None),
        }
    }

    fn at_headers(&self) {
        self.headers.set(limits::HEADERS_MAX);
    }

    fn at_member(&self, name: &[u8]) {
        self.headers.set(u64::MAX);
        *self.member.borrow_mut() = name.to_vec();
    }

    /// Accounts for `n` bytes that were read.
    fn take(&self, n: u64) -> io::Result<()> {
        let (bytes, headers) = (self.bytes.get().checked_sub(n), self.headers.get().checked_sub(n));
        if let (Some(bytes), Some(headers)) = (bytes, headers) {
            self.bytes.set(bytes);
            self.headers.set(headers);
            return Ok(());
        }
        let member = quoted(&self.member.borrow());
        let why = if bytes.is_none() {
            let max = Size(limits::UNPACKED_MAX);
            format!("it unpacks to more than {max}, which no kernel does; its last member is {member}")
        } else {
            let max = Size(limits::HEADERS_MAX);
            format!("the headers of the member after {member} are larger than {max}, which no name needs")
        };
        self.over.set(Some(why.clone()));
        Err(io::Error::other(why))
    }
}

/// A reader that fails when a limit is exceeded.
struct Metered<'a, R> {
    inner: R,
    meter: &'a Meter,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.meter.take(n as u64)?;
        Ok(n)
    }
}

/// A reader that reports its position.
struct Counted<'a, R> {
    inner: R,
    count: u64,
    read: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        (self.read)(self.count);
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
