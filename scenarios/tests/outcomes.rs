//! Every scenario on the running kernel, compared with its reviewed outcome;
//! and every scenario without its cause, which must then reproduce nothing.

use std::path::Path;
use std::process::ExitCode;

use faultlab_testkit::Reviewed;
use scenarios::CATALOGUE;

fn main() -> ExitCode {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let mut reviewed = Reviewed::new(&CATALOGUE, snapshots);
    for scenario in ["tw-recycle-nat", "tw-recycle-pod-and-node"] {
        for model in ["model", "model-3.10"] {
            reviewed = reviewed.set(scenario, "recycle", model);
        }
    }
    reviewed.main()
}
