//! Tests with well-formed and with hostile packages.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::ar::tests::{ar, header};
use super::*;

/// A tar archive with these files, whatever their names.
fn tar(files: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, bytes) in files {
        tar.extend(member(path, b'0', bytes.len() as u64));
        tar.extend(*bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A member's header, behind a long name where it needs one (GNU tar, "L").
fn member(path: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let mut bytes = Vec::new();
    if path.len() > 100 {
        bytes.extend(member(b"././@LongLink", b'L', path.len() as u64));
        bytes.extend(path);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    let short = &path[..path.len().min(100)];
    header.as_old_mut().name[..short.len()].copy_from_slice(short);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes
}

fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_bytes(), *bytes)).collect();
    ar("data.tar", &tar(&files))
}

/// A directory with an entry, and beside it a directory that must stay unchanged.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("entry")).unwrap();
        fs::create_dir(dir.path().join("host")).unwrap();
        fs::write(dir.path().join("host/veth.ko"), "the host's").unwrap();
        Self { dir }
    }

    fn entry(&self) -> PathBuf {
        self.dir.path().join("entry")
    }

    fn unpack_file(&self, deb: &Path, found: &mut Contents) -> Result<()> {
        let unpacked = unpack(deb, &Directory::open(&self.entry()).unwrap(), found, &mut |_| ());
        assert_eq!(fs::read(self.dir.path().join("host/veth.ko")).unwrap(), b"the host's");
        assert_eq!(fs::read_dir(self.dir.path().join("host")).unwrap().count(), 1);
        unpacked
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Contents> {
        let deb = self.dir.path().join("x.deb");
        fs::write(&deb, bytes).unwrap();
        let mut found = Contents::default();
        self.unpack_file(&deb, &mut found).map(|()| found)
    }

    /// The paths of all files of the entry.
    fn files(&self) -> Vec<String> {
        let entry = Directory::open(&self.entry()).unwrap();
        entry.files(|_| true, 99).unwrap().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn only_what_a_guest_needs_is_unpacked() {
    let place = Place::new();
    let bytes = deb(&[
        ("./boot/vmlinuz-6.1.0", b"image"),
        ("./boot/System.map-6.1.0", b"map"),
        ("./lib/modules/6.1.0/kernel/net/veth.ko.xz", b"veth"),
        ("./lib/modules/6.1.0/modules.builtin", b"kernel/net/core.ko"),
        ("./usr/share/doc/gr\u{fc}\u{df}e/copyright", b"text"),
    ]);
    let found = place.unpack(&bytes).unwrap();
    assert_eq!(found.images.iter().collect::<Vec<_>>(), ["6.1.0"]);
    assert_eq!(found.modules, found.images);
    assert_eq!(fs::read(place.entry().join("kernel")).unwrap(), b"image");
    assert_eq!(place.files(), ["kernel", "modules/kernel/net/veth.ko.xz", "modules/modules.builtin"]);
}

#[test]
fn every_packing_is_undone() {
    let long = format!("lib/modules/6.1.0/kernel/{}/veth.ko", "drivers/".repeat(12).trim_end_matches('/'));
    let plain = tar(&[(b"boot/vmlinuz-6.1.0", b"image"), (long.as_bytes(), b"veth")]);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&plain).unwrap();
    for (name, bytes) in [
        ("data.tar", plain.clone()),
        ("data.tar.xz", xz.finish().unwrap()),
        ("data.tar.zst", zstd::stream::encode_all(&plain[..], 1).unwrap()),
    ] {
        let place = Place::new();
        place.unpack(&ar(name, &bytes)).unwrap();
        assert_eq!(place.files().len(), 2, "{name}");
    }
}

#[test]
fn a_member_lies_where_its_name_says_beneath_the_entry() {
    let of = |text: &str| super::Place::of(&BeneathPath::parse(text.as_bytes()).unwrap());
    let target = |text: &str| of(text).unwrap().map(|place| place.target().to_string());
    for (path, lies_at) in [
        ("/usr/lib/modules/7.2.13/vmlinuz", Some("kernel")),
        ("./lib/modules/7.2.13/kernel//net/a.ko", Some("modules/kernel/net/a.ko")),
        (
            "lib/modules/6.1.0-x//somewhere/lib/modules/host/a.ko",
            Some("modules/somewhere/lib/modules/host/a.ko"),
        ),
        ("usr//lib/./modules/6.1.0/modules.builtin.modinfo", Some("modules/modules.builtin.modinfo")),
        ("usr/usr/lib/modules/6.1.0/a.ko", None),
        ("boot/vmlinuz-6.1.0/x", None),
        ("lib/modules/a.ko", None),
        ("lib/modules/6.1.0/build/Makefile", None),
        ("usr", None),
    ] {
        assert_eq!(target(path).as_deref(), lies_at, "{path}");
    }
    assert!(of("boot/vmlinuz-linux").unwrap_err().contains("\"linux\" is no release"));
    assert!(of("lib/modules/x y/a.ko").unwrap_err().contains("\"x y\" is no release"));
}

#[test]
fn no_name_leads_out_of_the_entry() {
    for (kind, lead) in [
        ("absolute behind an empty name", "./usr/lib/modules/6.1.0-x/"),
        ("absolute in the middle", "lib/modules/6.1.0-x/kernel/"),
        ("absolute from the start", ""),
    ] {
        let place = Place::new();
        let host = place.dir.path().join("host/veth.ko");
        let path = format!("{lead}{}", host.display());
        let other =
            format!("{lead}{}/lib/modules/host/kernel/net/other.ko", host.parent().unwrap().display());
        let unpacked = place.unpack(&deb(&[(&path, b"replaced"), (&other, b"added")]));
        // A path that counts as a module of the package stays below modules/.
        assert!(place.files().iter().all(|file| file.starts_with("modules/")), "{kind}");
        assert!(unpacked.is_ok(), "{kind}: {unpacked:?}");
    }
}

#[test]
fn a_name_that_is_no_good_is_refused() {
    for (path, why) in [
        (&b"./lib/modules/6.1.0/../../../host/veth.ko"[..], "leads out of its directory"),
        (b"../host/boot/vmlinuz-6.1.0", "leads out of its directory"),
        (b"lib/modules/6.1.0/kernel/a\nb.ko", "characters other than printable ASCII"),
        (b"lib/modules/6.1.0/kernel/\x1b[2J.ko", "characters other than printable ASCII"),
        ("lib/modules/6.1.0/\u{202e}ok.ev.ko".as_bytes(), "characters other than printable ASCII"),
        (b"lib/modules/6.1.0/\xff.ko", "characters other than printable ASCII"),
        (b"lib/modules/6.1.0/a\\b.ko", "characters other than printable ASCII"),
        (b"boot/vmlinuz-6.1\n0", "characters other than printable ASCII"),
        (b"lib/modules/../a.ko", "leads out of its directory"),
        (b"lib/modules/host/a.ko", "is of no kernel"),
    ] {
        let place = Place::new();
        let error = place.unpack(&ar("data.tar", &tar(&[(path, b"x")]))).unwrap_err().to_string();
        assert!(error.contains("its member ") && error.contains(why), "{path:?}: {error}");
        assert!(!error.contains(|c: char| c.is_control() || c == '\u{202e}'), "{error:?}");
        assert!(place.files().is_empty(), "{path:?}");
    }
}

#[test]
fn links_and_devices_are_left_alone() {
    let place = Place::new();
    let mut bytes = Vec::new();
    for (kind, name) in [(b'1', "hard"), (b'2', "sym"), (b'3', "char"), (b'4', "block"), (b'6', "fifo")] {
        bytes.extend(member(format!("lib/modules/6.1.0/{name}.ko").as_bytes(), kind, 0));
    }
    bytes.extend(tar(&[(b"lib/modules/6.1.0/veth.ko", b"veth")]));
    place.unpack(&ar("data.tar", &bytes)).unwrap();
    assert_eq!(place.files(), ["modules/veth.ko"]);
}

#[test]
fn a_link_in_the_entry_is_not_written_through() {
    let place = Place::new();
    fs::create_dir(place.entry().join("modules")).unwrap();
    symlink(place.dir.path().join("host"), place.entry().join("modules/kernel")).unwrap();
    let error = place.unpack(&deb(&[("lib/modules/6.1.0/kernel/veth.ko", b"veth")])).unwrap_err().to_string();
    assert!(error.contains("links are not followed"), "{error}");
    symlink(place.dir.path().join("host/veth.ko"), place.entry().join("modules/veth.ko")).unwrap();
    place.unpack(&deb(&[("lib/modules/6.1.0/veth.ko", b"veth")])).unwrap();
    assert_eq!(place.files(), ["modules/veth.ko"]);
}

#[test]
fn the_last_of_two_members_of_one_name_stays() {
    let place = Place::new();
    place
        .unpack(&deb(&[("boot/vmlinuz-6.1.0", b"first, longer"), ("lib/modules/6.1.0/vmlinuz", b"second")]))
        .unwrap();
    assert_eq!(fs::read(place.entry().join("kernel")).unwrap(), b"second");
}

#[test]
fn a_cut_package_says_so() {
    let place = Place::new();
    let whole = deb(&[("boot/vmlinuz-6.1.0", &[7; 5000])]);
    for (length, sentence) in [
        (0, "is no Debian package"),
        (30, "is cut short, in an ar header"),
        (72, "is cut short or no Debian package"),
        (whole.len() - 600, "is cut short: data.tar ends 600 bytes too early"),
    ] {
        let error = place.unpack(&whole[..length]).unwrap_err().to_string();
        assert!(error.contains(sentence), "{length}: {error}");
    }
}

/// A package as a sparse file: this header, then a hole of `size` bytes.
fn sparse(place: &Place, header_of: &[u8], size: u64) -> PathBuf {
    let deb = place.dir.path().join("sparse.deb");
    let mut file = File::create(&deb).unwrap();
    let mut start = ar("data.tar", &[]);
    start.truncate(start.len() - 60);
    start.extend(header("data.tar", header_of.len() as u64 + size));
    start.extend(header_of);
    file.write_all(&start).unwrap();
    let end = file.seek(SeekFrom::End(0)).unwrap() + size;
    file.set_len(end).unwrap();
    deb
}

#[test]
fn headers_before_a_member_are_bounded() {
    for (kind, what) in [(b'L', "name"), (b'K', "target"), (b'x', "pax")] {
        let place = Place::new();
        let mut start = member(b"lib/modules/6.1.0/first.ko", b'0', 0);
        start.extend(member(b"long", kind, 3 << 30));
        let deb = sparse(&place, &start, (3 << 30) + 1024);
        let error = place.unpack_file(&deb, &mut Contents::default()).unwrap_err().to_string();
        let sentence =
            "the headers of the member after \"lib/modules/6.1.0/first.ko\" are larger than 64 KiB";
        assert!(error.contains(sentence), "{what}: {error}");
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_written() {
    for (path, sentence) in [
        ("boot/vmlinuz-6.1.0", "\"boot/vmlinuz-6.1.0\" has 3221225472 bytes, and may have 256 MiB"),
        (
            "lib/modules/6.1.0/a.ko.zst",
            "\"lib/modules/6.1.0/a.ko.zst\" has 3221225472 bytes, and may have 512 MiB",
        ),
        ("boot/config-6.1.0", "\"boot/config-6.1.0\" has 3221225472 bytes, and may have 16 MiB"),
        ("lib/modules/6.1.0/modules.builtin", "\"lib/modules/6.1.0/modules.builtin\" has 3221225472 bytes"),
    ] {
        let place = Place::new();
        let deb = sparse(&place, &member(path.as_bytes(), b'0', 3 << 30), 3 << 30);
        let error = place.unpack_file(&deb, &mut Contents::default()).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
        assert!(place.files().is_empty());
    }
}

#[test]
fn what_a_package_unpacks_to_is_bounded() {
    let zeros = vec![0; 1 << 20];
    let bytes = zstd::stream::encode_all(&tar(&[(b"usr/share/doc/x", &zeros)])[..], 1).unwrap();
    assert!(bytes.len() < 1 << 12);
    let small =
        |bytes, members, modules| Contents { left: Left { bytes, members, modules }, ..Contents::default() };
    let place = Place::new();
    let deb = place.dir.path().join("x.deb");
    fs::write(&deb, ar("data.tar.zst", &bytes)).unwrap();
    let error = place.unpack_file(&deb, &mut small(1 << 19, 9, 9)).unwrap_err().to_string();
    assert!(error.contains("unpacks to more than 8 GiB") && error.contains("\"usr/share/doc/x\""), "{error}");
    // Two packages of one kernel share the budget.
    let mut found = small(3 << 19, 9, 9);
    place.unpack_file(&deb, &mut found).unwrap();
    assert!(place.unpack_file(&deb, &mut found).is_err());
    let modules =
        ["lib/modules/6.1.0/a.ko", "lib/modules/6.1.0/b.ko"].map(|path| (path.as_bytes(), &b"x"[..]));
    fs::write(&deb, ar("data.tar", &tar(&modules))).unwrap();
    let error = place.unpack_file(&deb, &mut small(1 << 20, 1, 9)).unwrap_err().to_string();
    assert!(error.contains("more than 100000 members"), "{error}");
    let error = place.unpack_file(&deb, &mut small(1 << 20, 9, 1)).unwrap_err().to_string();
    assert!(error.contains("more than 20000 modules"), "{error}");
}

#[test]
fn a_sparse_member_is_refused() {
    let place = Place::new();
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..18].copy_from_slice(b"boot/vmlinuz-6.1.0");
    header.set_entry_type(tar::EntryType::GNUSparse);
    // A hole of 8 GiB without a byte of data: octal 100000000000 at realsize.
    header.as_gnu_mut().unwrap().realsize.copy_from_slice(b"100000000000");
    header.as_gnu_mut().unwrap().sparse[0].offset.copy_from_slice(b"100000000000");
    header.as_gnu_mut().unwrap().sparse[0].numbytes.copy_from_slice(b"000000000000");
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + 1024, 0);
    let error = place.unpack(&ar("data.tar", &bytes)).unwrap_err().to_string();
    assert!(error.contains("is a sparse file"), "{error}");
}

#[test]
fn what_is_no_file_is_no_package() {
    let place = Place::new();
    let fifo = place.dir.path().join("fifo.deb");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = place.unpack_file(&fifo, &mut Contents::default()).unwrap_err().to_string();
    assert!(error.ends_with("it is a FIFO and no regular file"), "{error}");
}

/// Gives every header a valid checksum, so that its other fields are read.
fn sum_up(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_mutated_package_harms_nothing(
        packing in 0..3,
        changes in proptest::collection::vec((0usize..1 << 16, any::<u8>()), 0..8),
        inner in any::<bool>(),
        cut in proptest::option::of(0usize..1 << 14),
    ) {
        let mutate = |bytes: &mut Vec<u8>| for (at, byte) in &changes {
            let length = bytes.len();
            bytes[at % length] = *byte;
        };
        let mut bytes = tar(&[
            (b"./boot/vmlinuz-6.1.0", &[7; 700]),
            (b"./usr/lib/modules/6.1.0/kernel/net/veth.ko", b"veth"),
            ([&b"./lib/modules/6.1.0/"[..], &[b'd'; 120], b"/veth.ko"].concat().as_slice(), b"long"),
        ]);
        if inner {
            mutate(&mut bytes);
            sum_up(&mut bytes);
        }
        let (name, packed) = match packing {
            0 => ("data.tar", bytes),
            1 => {
                let options = lzma_rust2::XzOptions::with_preset(0);
                let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                xz.write_all(&bytes).unwrap();
                ("data.tar.xz", xz.finish().unwrap())
            }
            _ => ("data.tar.zst", zstd::stream::encode_all(&bytes[..], 1).unwrap()),
        };
        let mut whole = ar(name, &packed);
        if !inner {
            mutate(&mut whole);
            whole.truncate(cut.unwrap_or(usize::MAX));
        }
        let place = Place::new();
        let unpacked = place.unpack(&whole);
        if let Err(error) = unpacked {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
        prop_assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 3); // entry, host, x.deb
        place.files();
    }

    #[test]
    fn whatever_a_member_is_called_it_stays_beneath(
        lead in "(\\./|/)?(usr/)?(lib/modules/6\\.1\\.0/|boot/vmlinuz-|boot/config-)?",
        name in "(/|//|\\./|\\.\\./|a/|HOST/|\n|\x1b|\u{202e}|\u{fc}|a{90}/){0,8}",
        end in "(veth\\.ko|veth\\.ko\\.xz|modules\\.builtin|vmlinuz|6\\.1\\.0|\\.\\.)",
    ) {
        let place = Place::new();
        let host = place.dir.path().join("host").display().to_string();
        let path = format!("{lead}{}{end}", name.replace("HOST", &host));
        let _ = place.unpack(&deb(&[(&path, b"replaced")]));
        prop_assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 3);
        let beneath = |file: &String| ["kernel", "config"].contains(&file.as_str()) || file.starts_with("modules/");
        prop_assert!(place.files().iter().all(beneath), "{:?}", place.files());
    }
}
