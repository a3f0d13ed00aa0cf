//! A Debian package of a kernel, unpacked without dpkg.
//!
//! Reading: deb(5), ar(5). A .deb is an ar archive of `debian-binary`,
//! `control.tar.*` and `data.tar.*`; the last one is a tar archive under xz,
//! zstd or nothing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use faultlab_base::error::{Error, Result};

/// ar(5): the archive's magic string.
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// ar(5): name 16, mtime 12, uid 6, gid 6, mode 8, size 10, "`\n".
const AR_HEADER: usize = 60;

/// What a package, or several, held of a kernel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The releases of the images found.
    pub images: BTreeSet<String>,
    /// The releases of the modules found.
    pub modules: BTreeSet<String>,
}

/// Where a file of a package belongs in an entry of the store.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Image {
        release: &'a str,
    },
    Config,
    Module {
        release: &'a str,
        path: &'a str,
    },
    /// modules.builtin and its like.
    List {
        path: &'a str,
    },
}

impl<'a> Place<'a> {
    /// Sorts a path of a package's data archive; `None` is of no interest.
    fn of(path: &'a str) -> Option<Self> {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        if !Path::new(path).components().all(|c| matches!(c, Component::Normal(_))) {
            return None;
        }
        let path = path.strip_prefix("usr/").unwrap_or(path);
        if let Some(name) = path.strip_prefix("boot/") {
            if name.starts_with("config-") {
                return Some(Self::Config);
            }
            return name.strip_prefix("vmlinuz-").map(|release| Self::Image { release });
        }
        let (release, path) = path.strip_prefix("lib/modules/")?.split_once('/')?;
        match path {
            "vmlinuz" => Some(Self::Image { release }),
            "config" => Some(Self::Config),
            _ if path.starts_with("modules.builtin") => Some(Self::List { path }),
            _ if is_module(path) => Some(Self::Module { release, path }),
            _ => None,
        }
    }

    fn target(&self, entry: &Path) -> PathBuf {
        match self {
            Self::Image { .. } => entry.join("kernel"),
            Self::Config => entry.join("config"),
            Self::Module { path, .. } | Self::List { path } => entry.join("modules").join(path),
        }
    }
}

/// Whether a file name is that of a kernel module, packed or not.
pub(crate) fn is_module(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| name.ends_with(end))
}

/// Unpacks the kernel, its modules and its configuration from the package at
/// `deb` into `entry`, and adds to `found` what there was. `read` is told how
/// many bytes of the package have been read so far.
///
/// # Errors
/// One sentence: the file is no package, is cut short or damaged; or `entry`
/// could not be written to.
pub fn unpack(deb: &Path, entry: &Path, found: &mut Contents, read: &mut dyn FnMut(u64)) -> Result<()> {
    let name = deb.display();
    let mut file = File::open(deb).map_err(|e| Error::kernel("kernel package", format!("read {name}"), e))?;
    let data = find_data(&mut file).map_err(|why| Error::Lab(format!("{name}: {why}")))?;
    let counted = Counted { inner: BufReader::new(file).take(data.size), count: 0, read };
    let archive: Box<dyn Read + '_> = match data.name.as_str() {
        "data.tar" => Box::new(counted),
        "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(counted, true)),
        "data.tar.zst" => Box::new(
            zstd::stream::read::Decoder::new(counted)
                .map_err(|e| Error::Lab(format!("{name} is damaged: {e}")))?,
        ),
        other => {
            return Err(Error::Lab(format!(
                "{name}: {other} is packed in a way that is not understood (xz and zstd are)"
            )));
        }
    };
    let damaged = |e: io::Error| Error::Lab(format!("{name} is damaged: {e}"));
    let mut archive = tar::Archive::new(archive);
    for file in archive.entries().map_err(damaged)? {
        let mut file = file.map_err(damaged)?;
        if !file.header().entry_type().is_file() {
            continue;
        }
        let path = file.path_bytes().into_owned();
        let Some(place) = str::from_utf8(&path).ok().and_then(Place::of) else { continue };
        write(&mut file, &place.target(entry)).map_err(|e| match e {
            Failed::Reading(e) => damaged(e),
            Failed::Writing(e) => Error::kernel(entry.display().to_string(), "unpack", e),
        })?;
        match place {
            Place::Image { release } => found.images.insert(release.to_owned()),
            Place::Module { release, .. } => found.modules.insert(release.to_owned()),
            Place::Config | Place::List { .. } => false,
        };
    }
    Ok(())
}

/// A member of an ar archive.
#[derive(Debug)]
struct Member {
    name: String,
    size: u64,
}

/// Leaves `file` at the first byte of the member that holds the data.
fn find_data(file: &mut (impl Read + Seek)) -> std::result::Result<Member, String> {
    let failed = |e: io::Error| format!("cannot be read: {e}");
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut magic = Vec::new();
    file.by_ref().take(AR_MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    if magic != AR_MAGIC {
        return Err("is no Debian package (no ar archive)".into());
    }
    let mut at = AR_MAGIC.len() as u64;
    loop {
        if at >= length {
            return Err("is cut short or no Debian package: it holds no data.tar".into());
        }
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut header = Vec::new();
        file.by_ref().take(AR_HEADER as u64).read_to_end(&mut header).map_err(failed)?;
        if header.len() < AR_HEADER {
            return Err("is cut short, in an ar header".into());
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let name = text(0..16).trim_end_matches('/').to_owned();
        let size: u64 =
            text(48..58).parse().map_err(|_| "is damaged: an ar header has no size".to_owned())?;
        let end = at + AR_HEADER as u64 + size;
        if end > length {
            return Err(format!("is cut short: {name} ends {} bytes too early", end - length));
        }
        if name.starts_with("data.tar") {
            return Ok(Member { name, size });
        }
        // ar(5): members begin at even bytes.
        at = end + end % 2;
    }
}

/// A reader that tells how far it has come.
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

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

fn write(from: &mut impl Read, to: &Path) -> std::result::Result<(), Failed> {
    use std::io::Write;

    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(Failed::Writing)?;
    let mut file = File::create(to).map_err(Failed::Writing)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => file.write_all(&buffer[..n]).map_err(Failed::Writing)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failed::Reading(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with these files in an uncompressed data.tar.
    fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        let mut ar = AR_MAGIC.to_vec();
        for (name, bytes) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar", tar.into_inner().unwrap())] {
            ar.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).bytes(),
            );
            ar.extend(bytes);
        }
        ar
    }

    fn unpacked(bytes: &[u8], into: &Path) -> Result<Contents> {
        let deb = into.join("x.deb");
        fs::write(&deb, bytes).unwrap();
        let mut found = Contents::default();
        unpack(&deb, into, &mut found, &mut |_| ()).map(|()| found)
    }

    #[test]
    fn only_what_a_guest_needs_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = deb(&[
            ("boot/vmlinuz-6.1.0", b"image"),
            ("boot/System.map-6.1.0", b"map"),
            ("lib/modules/6.1.0/kernel/net/veth.ko.xz", b"veth"),
            ("lib/modules/6.1.0/modules.builtin", b"kernel/net/core.ko"),
            ("usr/share/doc/copyright", b"text"),
        ]);
        let found = unpacked(&bytes, dir.path()).unwrap();
        assert_eq!(found.images.iter().collect::<Vec<_>>(), ["6.1.0"]);
        assert_eq!(found.modules, found.images);
        assert_eq!(fs::read(dir.path().join("kernel")).unwrap(), b"image");
        assert_eq!(fs::read(dir.path().join("modules/kernel/net/veth.ko.xz")).unwrap(), b"veth");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3); // kernel, modules, x.deb
    }

    #[test]
    fn a_path_that_climbs_is_left_alone() {
        assert_eq!(Place::of("./lib/modules/6.1.0/../../../etc/x.ko"), None);
        assert_eq!(Place::of("/usr/lib/modules/7.2.13/vmlinuz"), Some(Place::Image { release: "7.2.13" }));
    }

    #[test]
    fn a_cut_package_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let whole = deb(&[("boot/vmlinuz-6.1.0", &[7; 5000])]);
        for (length, sentence) in [
            (0, "is no Debian package"),
            (30, "is cut short, in an ar header"),
            (72, "is cut short or no Debian package"),
            (whole.len() - 600, "is cut short: data.tar ends 600 bytes too early"),
        ] {
            let error = unpacked(&whole[..length], dir.path()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{length}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), at in 0usize..400) {
            let mut whole = deb(&[("boot/vmlinuz-6.1.0", &[7; 100])]);
            whole.truncate(at);
            whole.extend(bytes);
            let _ = find_data(&mut io::Cursor::new(whole));
        }
    }
}
