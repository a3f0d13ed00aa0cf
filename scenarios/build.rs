//! Writes the table of reviewed snapshots that the program carries.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    // Not the place where this script was compiled: a copied target directory has another.
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&package).join("../snapshots");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(&folder).expect("snapshots/ is beside scenarios/");
    let mut files: Vec<_> = entries.map(|e| e.expect("snapshots/ can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "snap"));
    files.sort();
    let mut table = String::from("const SNAPSHOTS: &[(&str, &str)] = &[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.file_stem().expect("a snapshot has a name").to_string_lossy().into_owned();
        let _ = writeln!(table, "    ({name:?}, include_str!({:?})),", file.display().to_string());
    }
    table.push_str("];\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("snapshots.rs"), table).expect("OUT_DIR can be written");
}
