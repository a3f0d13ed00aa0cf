//! The scenario on the running kernel: its outcome must match the reviewed one,
//! and without its cause it must reproduce nothing.
//!
//! A differing outcome is written next to the snapshot, as
//! `snapshots/*.snap.new`. Read it, then rename it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    faultlab_testkit::scenarios(&own_scenario::CATALOGUE, snapshots)
}
