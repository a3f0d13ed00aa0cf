//! The scenario on the running kernel, compared with its reviewed outcome.
//!
//! What differs is written beside it, as `snapshots/*.snap.new`; read it, then
//! rename it.

use std::collections::BTreeMap;
use std::path::Path;

use lab::machine::here::Here;
use lab::machine::job::Job;
use lab::stage::CaptureOptions;
use lab::{Error, snapshot};

#[test]
fn the_outcome_is_the_reviewed_one() {
    let job = Job::Run {
        scenario: "mtu-black-hole".to_owned(),
        only: vec![],
        set: BTreeMap::new(),
        without_cause: false,
        looks: Some(CaptureOptions::default()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        // The program is started again for what it does in namespaces.
        let checked = Here::find(Path::new(env!("CARGO_BIN_EXE_own-scenario"))).await?;
        checked.here.run(job, &mut |_| {}).await
    });
    let outcome = outcome.unwrap_or_else(|error: Error| panic!("{error}"));
    if !outcome.expected {
        let name = outcome.snapshot_name(false).expect("every kernel has an era");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("snapshots/{name}.snap.new"));
        std::fs::write(&file, snapshot::write(&outcome)).expect("the outcome is written");
        panic!("{}; see {}", outcome.reason.unwrap_or_default(), file.display());
    }
}
