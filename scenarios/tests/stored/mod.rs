//! The kernels of the store, and guests with them, as users run them.

use std::fs;
use std::path::Path;
use std::process::Command;

use faultlab_testkit::{Answer, answer, leave_out};
use lab::kernels::Store;
use lab::machine::vm::Qemu;
use serde_json::Value;
use tempfile::TempDir;

use super::user::{ask, faultlab};

/// A scenario that is reproduced up to 6.0, and not later.
pub const CHANGED: &str = "conntrack-delayed-segment-reset";

/// A kernel of the store.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: String,
    /// The numbers of its release, for sorting: 5.10 before 6.1.
    pub version: Vec<u32>,
}

impl Stored {
    pub fn is_changed(&self) -> bool {
        self.version >= vec![6, 1]
    }
}

/// The kernels of the store, oldest first, and each release once.
pub fn kernels() -> Vec<Stored> {
    if let Err(missing) = Qemu::find() {
        leave_out(missing.to_string());
    }
    let list = ask("kernel list --json");
    assert_eq!(list.status, Some(0), "{}", list.err);
    let stored = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let release = entry["release"].as_str().expect("a release");
        let numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
        Stored { id: entry["id"].as_str().expect("an id").to_owned(), version: numbers.collect() }
    };
    let mut kernels: Vec<_> = list.out.lines().map(stored).collect();
    kernels.sort_by(|a, b| (&a.version, &a.id).cmp(&(&b.version, &b.id)));
    kernels.dedup_by(|a, b| a.version == b.version);
    kernels
}

pub fn newest() -> Stored {
    let why = "the store has no kernel; `faultlab kernel add debian:bookworm` fetches one";
    kernels().pop().unwrap_or_else(|| leave_out(why))
}

/// The oldest and the newest kernel. [`CHANGED`] is reproduced on the first
/// only.
pub fn two() -> [Stored; 2] {
    let kernels = kernels();
    match (kernels.first(), kernels.last()) {
        (Some(old), Some(new)) if !old.is_changed() && new.is_changed() => [old.clone(), new.clone()],
        _ => {
            leave_out("the store has no kernel before 6.1 and one since; `faultlab kernel add` fetches them")
        }
    }
}

/// `faultlab` with these arguments and its own directory for temporary files,
/// which must stay empty.
pub fn run(line: &str) -> Answer {
    let home = Home::new();
    let done = answer(faultlab(line).env("TMPDIR", home.path()));
    home.assert_empty();
    done
}

/// The directory for temporary files.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn assert_empty(&self) {
        let files: Vec<_> = fs::read_dir(self.path()).expect("the directory").flatten().collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

/// The message if no guest can be started: status 69, and nothing on stdout.
pub fn refusal(command: &mut Command) -> String {
    let home = Home::new();
    let Answer { status, out, err } = answer(command.env("TMPDIR", home.path()));
    assert_eq!((status, out.as_str()), (Some(69), ""), "{err}");
    assert_eq!(err.lines().count(), 1, "one sentence: {err}");
    assert!(err.starts_with("faultlab: "), "{err}");
    home.assert_empty();
    err
}

/// A bzImage according to its header, with invalid instructions: a triple fault
/// resets the machine.
pub fn broken_kernel() -> Vec<u8> {
    let store = Store::open().expect("the store");
    let kernel = store.get(&newest().id).expect("the kernel");
    let mut image = fs::read(kernel.image).expect("the image");
    // boot.rst: setup_sects, and the boot sector itself.
    let code = (usize::from(image[0x1f1]) + 1) * 512;
    image[code..].chunks_exact_mut(2).for_each(|ud2| ud2.copy_from_slice(&[0x0f, 0x0b]));
    image
}
