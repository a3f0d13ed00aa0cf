//! The scenario on the running kernel: its outcome is the reviewed one, and
//! without its cause it reproduces nothing.
//!
//! What differs is written beside the snapshot, as `snapshots/*.snap.new`; read
//! it, then rename it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    faultlab_testkit::scenarios(&own_scenario::CATALOGUE, snapshots)
}
