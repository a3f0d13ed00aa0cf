//! The kernel store on a real file system, and its kernels in a real guest:
//! this very executable boots as the guest's init.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::{process, thread};

use faultlab_testkit::require_all;
use lab::kernels::{Progress, Source, Store, add};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("an_image_is_added_once_and_whole", || run(an_image_is_added_once_and_whole)),
        Trial::test("a_changed_kernel_is_not_run", || run(a_changed_kernel_is_not_run)),
        Trial::test("what_a_dead_process_left_is_swept", || run(what_a_dead_process_left_is_swept)),
        Trial::test("many_may_add_at_once", || run(many_may_add_at_once)),
        Trial::test("a_name_that_is_taken_is_passed_over", || run(a_name_that_is_taken_is_passed_over)),
        Trial::test("what_is_no_kernel_leaves_nothing", || run(what_is_no_kernel_leaves_nothing)),
        Trial::test("a_package_writes_nothing_outside", || run(a_package_writes_nothing_outside)),
        Trial::test("a_name_that_is_no_good_is_not_added", || run(a_name_that_is_no_good_is_not_added)),
        Trial::test("what_is_no_file_is_never_read", || run(what_is_no_file_is_never_read)),
        Trial::test("a_link_in_the_store_is_not_followed", || run(a_link_in_the_store_is_not_followed)),
        Trial::test("a_tampered_entry_is_none_and_says_so", || run(a_tampered_entry_is_none_and_says_so)),
    ];
    let may_mount = nix::unistd::geteuid().is_root();
    trials.extend(
        [
            Trial::test("a_full_disk_leaves_nothing", || run(a_full_disk_leaves_nothing)),
            Trial::test("a_kernel_is_removed_from_a_full_disk", || run(a_kernel_is_removed_from_a_full_disk)),
        ]
        .map(|trial| trial.with_ignored_flag(!may_mount && !require_all())),
    );
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs a test on its own thread, with an empty directory.
fn run(test: fn(&Path)) -> Result<(), Failed> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    thread::scope(|scope| scope.spawn(|| test(dir.path())).join()).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default().into()
    })
}

/// The smallest image that passes as a bzImage, with this much code.
fn bzimage(release: &str, size: u32) -> Vec<u8> {
    let mut image = vec![0; 0x400 + size as usize];
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&(size / 16).to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e] = 0x80;
    image[0x280..0x280 + release.len()].copy_from_slice(release.as_bytes());
    image
}

/// Writes an image and its modules; returns the source to add them from.
fn source(dir: &Path, release: &str, code: u8) -> Source {
    let (image, modules) = (dir.join(format!("bzImage-{code}")), dir.join("built"));
    let mut bytes = bzimage(release, 4096);
    bytes[0x400] = code;
    fs::write(&image, bytes).unwrap();
    fs::create_dir_all(modules.join("kernel/net")).unwrap();
    fs::write(modules.join("kernel/net/veth.ko"), "veth").unwrap();
    Source::parse(&[image.display().to_string()], Some(&modules)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn an_image_is_added_once_and_whole(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let mut steps = Vec::new();
    let first = add(&store, &source(dir, "6.1.0-test", 1), &mut |progress| {
        if let Progress::Step(step) = progress {
            steps.push(step);
        }
    })
    .unwrap();
    assert_eq!((first.id.as_str(), first.modules), ("6.1.0-test", 1));
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!(names(store.root()), ["6.1.0-test"]);
    assert_eq!(names(&store.root().join("6.1.0-test")), ["SHA256SUMS", "entry.json", "kernel", "modules"]);
    // Add the same again; then the same release, rebuilt.
    assert_eq!(add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap().sums, first.sums);
    let anew = add(&store, &source(dir, "6.1.0-test", 2), &mut |_| ()).unwrap();
    assert_ne!(anew.sums, first.sums);
    assert_eq!(fs::read(store.get("6.1.0-test").unwrap().image).unwrap()[0x400], 2);
    assert_eq!(store.list().unwrap(), [anew]);
    assert_eq!(names(store.root()), ["6.1.0-test"]);
    store.remove("6.1.0-test").unwrap();
    assert!(names(store.root()).is_empty());
    let error = store.remove("6.1.0-test").unwrap_err().to_string();
    assert_eq!(error, "kernel 6.1.0-test is missing; no kernel has been added yet");
}

fn a_changed_kernel_is_not_run(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    let entry = store.root().join("6.1.0-test");
    fs::write(entry.join("modules/kernel/net/veth.ko"), "changed").unwrap();
    let modules = store.get("6.1.0-test").unwrap().modules().unwrap();
    let error = modules.read("veth").unwrap_err().to_string();
    assert!(error.ends_with("veth.ko is not what was added; remove the kernel and add it again"), "{error}");
    let found = store.get("6.1.0-test").unwrap();
    assert_eq!(found.read_image().unwrap()[0x400], 1);
    fs::write(entry.join("kernel"), bzimage("6.1.0-test", 4096)).unwrap();
    assert!(found.read_image().unwrap_err().to_string().contains("kernel is not what was added"));
    assert!(store.get("6.1.0-test").unwrap_err().to_string().contains("kernel is not what was added"));
    // Adding it again repairs it; so it does if only one module was changed.
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    store.get("6.1.0-test").unwrap();
    fs::write(entry.join("modules/kernel/net/veth.ko"), "changed").unwrap();
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    assert_eq!(fs::read(entry.join("modules/kernel/net/veth.ko")).unwrap(), b"veth");
}

fn what_a_dead_process_left_is_swept(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let left = store.root().join(".adding-999999-0");
    fs::create_dir_all(left.join("entry")).unwrap();
    let alive = store.root().join(".adding-999998-0");
    fs::create_dir_all(&alive).unwrap();
    let lock = Flock::lock(File::open(&alive).unwrap(), FlockArg::LockExclusive).unwrap();
    let store = Store::at(store.root()).unwrap();
    assert_eq!(names(store.root()), [".adding-999998-0"]);
    assert!(store.list().unwrap().is_empty());
    drop(lock);
}

fn many_may_add_at_once(dir: &Path) {
    let root = dir.join("store");
    let sources: Vec<_> = (0..8).map(|n| source(dir, "6.1.0-test", n / 4)).collect();
    thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| add(&Store::at(&root).unwrap(), source, &mut |_| ()).unwrap());
        }
    });
    let store = Store::at(&root).unwrap();
    assert_eq!(names(&root), ["6.1.0-test"]);
    store.get("6.1.0-test").unwrap().modules().unwrap();
}

fn a_name_that_is_taken_is_passed_over(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    // A process in another pid namespace has the same pid, and is still using these
    // names.
    let taken = |number| {
        let path = store.root().join(format!(".adding-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap()
    };
    let alive: Vec<_> = (0..64).map(taken).collect();
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    assert_eq!(names(store.root()).len(), alive.len() + 1);
    store.remove("6.1.0-test").unwrap();
    assert_eq!(names(store.root()).len(), alive.len());
}

fn what_is_no_kernel_leaves_nothing(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let text = dir.join("text");
    fs::write(&text, "text").unwrap();
    let deb = dir.join("cut.deb");
    fs::write(&deb, "!<arch>\ndebian-binary").unwrap();
    let cut = dir.join("cut");
    fs::write(&cut, &bzimage("6.1.0", 4096)[..2000]).unwrap();
    for (file, sentence) in [
        (&text, "is no bzImage: it has no HdrS at 0x202"),
        (&cut, "is no bzImage: it is cut short, 2000 bytes of 5120"),
        (&deb, "is cut short, in an ar header"),
        (&dir.join("gone"), "No such file or directory (os error 2)"),
    ] {
        let source = Source::parse(&[file.display().to_string()], None).unwrap();
        let error = add(&store, &source, &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with(sentence), "{error}");
        assert!(names(store.root()).is_empty());
    }
}

/// A .deb with these files; their names may be unsafe.
fn deb(path: &Path, files: &[(&str, &[u8])]) -> Source {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        let old = &mut header.as_old_mut().name;
        old[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    let mut ar = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar", tar.into_inner().unwrap())] {
        ar.extend(format!("{name:<16}{:<32}{:<10}`\n", "0", bytes.len()).bytes());
        ar.extend(bytes);
    }
    fs::write(path, ar).unwrap();
    Source::parse(&[path.display().to_string()], None).unwrap()
}

fn a_package_writes_nothing_outside(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let host = dir.join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("veth.ko"), "the host's").unwrap();
    let image = bzimage("6.1.0-x", 4096);
    let absolute = format!("./usr/lib/modules/6.1.0-x/{}", host.join("veth.ko").display());
    let files = [("./boot/vmlinuz-6.1.0-x", &image[..]), (&absolute, b"replaced")];
    let entry = add(&store, &deb(&dir.join("a.deb"), &files), &mut |_| ()).unwrap();
    assert_eq!((entry.id.as_str(), entry.modules), ("6.1.0-x", 1));
    store.remove("6.1.0-x").unwrap();
    // An add that fails.
    let without_image = &files[1..];
    let error = add(&store, &deb(&dir.join("b.deb"), without_image), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("without its image"), "{error}");
    let climbing = "./usr/lib/modules/6.1.0-x/../../../../../host/veth.ko";
    let files = [("./boot/vmlinuz-6.1.0-x", &image[..]), (climbing, b"replaced")];
    let error = add(&store, &deb(&dir.join("c.deb"), &files), &mut |_| ()).unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("c.deb: its member \"{climbing}\" leads out of its directory")),
        "{error}"
    );
    assert_eq!(fs::read(host.join("veth.ko")).unwrap(), b"the host's");
    assert_eq!((names(&host), names(store.root())), (vec!["veth.ko".to_owned()], vec![]));
}

fn a_name_that_is_no_good_is_not_added(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let image = bzimage("6.1.0", 4096);
    for name in ["lib/modules/6.1.0/a\nb.ko", "lib/modules/6.1.0/\x1b[2J.ko", "lib/modules/6.1.0/\u{202e}.ko"]
    {
        let files = [("boot/vmlinuz-6.1.0", &image[..]), (name, b"x")];
        let error = add(&store, &deb(&dir.join("a.deb"), &files), &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("has characters other than printable ASCII"), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    let of_package = deb(&dir.join("a\nb.deb"), &[("boot/vmlinuz-6.1.0", &image)]);
    let error = add(&store, &of_package, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(error, "\"a\\nb.deb\" has characters that do not print; rename it");
    let source = source(dir, "6.1.0", 1);
    let odd = dir.join("built/kernel/a\nb.ko");
    fs::write(&odd, "").unwrap();
    let error = add(&store, &source, &mut |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("\"kernel/a\\nb.ko\" has characters other than printable ASCII; rename it"),
        "{error}"
    );
    // Symbolic links below --modules are not followed.
    fs::remove_file(&odd).unwrap();
    fs::write(dir.join("outside.ko"), "").unwrap();
    symlink(dir.join("outside.ko"), dir.join("built/kernel/outside.ko")).unwrap();
    symlink("/lib/modules", dir.join("built/6.1.0")).unwrap();
    assert_eq!(add(&store, &source, &mut |_| ()).unwrap().modules, 1);
}

/// A file of an entry, or the entry itself.
fn part(entry: &Path, name: &str) -> PathBuf {
    if name.is_empty() { entry.to_owned() } else { entry.join(name) }
}

/// Replaces a file or a directory by a FIFO. Opening one blocks.
fn put_fifo(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

fn what_is_no_file_is_never_read(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let source = source(dir, "6.1.0-test", 1);
    let entry = store.root().join("6.1.0-test");
    let files = ["entry.json", "SHA256SUMS", "kernel", "modules", "modules/kernel/net/veth.ko", ""];
    for replaced in files {
        let added = add(&store, &source, &mut |_| ()).unwrap();
        assert_eq!(store.list().unwrap(), [added], "{replaced}");
        put_fifo(&part(&entry, replaced));
        let store = Store::at(store.root()).unwrap();
        let is_entry = !["entry.json", ""].contains(&replaced);
        assert_eq!(store.list().unwrap().len(), usize::from(is_entry), "{replaced}");
        assert_eq!(store.invalid().unwrap().len(), usize::from(!is_entry), "{replaced}");
        let read = store.get("6.1.0-test").and_then(|kernel| kernel.modules()?.read("veth"));
        assert!(replaced.starts_with("modules/") || read.is_err(), "{replaced}");
        assert!(!matches!(read, Ok(Some(_))), "{replaced}");
    }
    // The FIFO itself can be removed. A FIFO with the name of a dead process's
    // temporary directory is ignored.
    assert!(entry.metadata().unwrap().file_type().is_fifo());
    store.remove("6.1.0-test").unwrap();
    mkfifo(&store.root().join(".adding-999999-0"), Mode::S_IRWXU).unwrap();
    let store = Store::at(store.root()).unwrap();
    assert_eq!(names(store.root()), [".adding-999999-0"]);
    // Images and packages that a user names.
    for name in ["bzImage", "a.deb"] {
        let fifo = dir.join(name);
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let source = Source::parse(&[fifo.display().to_string()], None).unwrap();
        let error = add(&store, &source, &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("it is a FIFO and no regular file"), "{error}");
    }
    // A directory, and a file larger than any limit.
    let added = add(&store, &source, &mut |_| ()).unwrap();
    for (name, sentence) in
        [("entry.json", "64 KiB"), ("SHA256SUMS", "32 MiB"), ("kernel", "is not what was added")]
    {
        let path = entry.join(name);
        File::options().write(true).open(&path).unwrap().set_len(64 << 20).unwrap();
        let error = store.get("6.1.0-test").unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.get("6.1.0-test").unwrap_err().to_string().contains("a directory and no regular file"));
        assert_eq!(add(&store, &source, &mut |_| ()).unwrap(), added);
    }
}

fn a_link_in_the_store_is_not_followed(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    let entry = store.root().join("6.1.0-test");
    for name in ["", "modules", "kernel", "entry.json", "SHA256SUMS", "modules/kernel/net/veth.ko"] {
        add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
        let outside = dir.join("outside");
        fs::rename(part(&entry, name), &outside).unwrap();
        symlink(&outside, part(&entry, name)).unwrap();
        let read = store.get("6.1.0-test").and_then(|kernel| kernel.modules()?.read("veth"));
        assert!(!matches!(read, Ok(Some(_))), "{name}");
        assert!(name.starts_with("modules/") || read.is_err(), "{name}");
        // Removing the kernel removes the link and keeps its target.
        store.remove("6.1.0-test").unwrap();
        assert!(names(store.root()).is_empty(), "{name}");
        if outside.is_dir() { fs::remove_dir_all(&outside) } else { fs::remove_file(&outside) }.unwrap();
    }
}

fn a_tampered_entry_is_none_and_says_so(dir: &Path) {
    let store = Store::at(dir.join("store")).unwrap();
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    let entry = store.root().join("6.1.0-test/entry.json");
    let whole: serde_json::Value = serde_json::from_slice(&fs::read(&entry).unwrap()).unwrap();
    for (field, value) in [
        ("release", "6.1.0\x1b]0;title\x07".into()),
        ("release", "any".into()),
        ("version", "1\u{202e}2".into()),
        ("source", vec!["a\nadded b".to_owned()].into()),
        ("id", "other".into()),
        ("sums", "".into()),
        ("modules", (-1).into()),
    ] {
        let mut tampered = whole.clone();
        tampered[field] = value;
        fs::write(&entry, tampered.to_string()).unwrap();
        assert!(store.list().unwrap().is_empty(), "{field}");
        let said = store.invalid().unwrap().into_iter().chain(store.get("6.1.0-test").err());
        let said: Vec<_> = said.map(|error| error.to_string()).collect();
        assert_eq!((said.len(), &said[0]), (2, &said[1]), "{field}");
        assert!(
            said[0].contains("entry.json: it ") && said[0].ends_with("remove the kernel and add it again")
        );
        assert!(!said[0].contains(|c: char| c.is_control() || c == '\u{202e}'), "{said:?}");
    }
    fs::write(&entry, "[".repeat(60_000)).unwrap();
    assert!(store.list().unwrap().is_empty());
    store.remove("6.1.0-test").unwrap();
    // Names that no entry can have.
    for name in ["\x1b[2J", "a b", "\u{202e}"] {
        fs::create_dir(store.root().join(name)).unwrap();
    }
    let said: Vec<_> = store.invalid().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|error| error.ends_with("is no name of a kernel; remove the file")), "{said:?}");
    assert!(store.remove("../store").is_err() && store.remove("..").is_err());
}

/// Mounts a small file system with these options, in a mount namespace that only this
/// thread has.
fn small_disk(root: &Path, options: &str) {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    fs::create_dir(root).unwrap();
    mount(Some("small"), root, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
}

fn a_kernel_is_removed_from_a_full_disk(dir: &Path) {
    let root = dir.join("small");
    small_disk(&root, "size=1m,nr_inodes=64");
    let store = Store::at(&root).unwrap();
    add(&store, &source(dir, "6.1.0-test", 1), &mut |_| ()).unwrap();
    let full = (0..64).find_map(|n| fs::create_dir(root.join(format!(".filler-{n}"))).err()).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    store.remove("6.1.0-test").unwrap();
    assert!(names(&root).iter().all(|name| name.starts_with(".filler-")), "{:?}", names(&root));
}

fn a_full_disk_leaves_nothing(dir: &Path) {
    let root = dir.join("small");
    small_disk(&root, "size=16k");
    let store = Store::at(&root).unwrap();
    let source = source(dir, "6.1.0-test", 1);
    fs::write(dir.join("bzImage-1"), bzimage("6.1.0-test", 65536)).unwrap();
    let error = add(&store, &source, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("(nothing of it is kept): No space left on device"), "{error}");
    assert!(names(&root).is_empty());
}
