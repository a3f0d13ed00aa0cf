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
        for model in ["model", "model-mainline-3.16"] {
            reviewed = reviewed.set(scenario, &[("recycle", model)]);
        }
    }
    // What does not depend on the address family looks the same over IPv6.
    reviewed = reviewed.set("conntrack-idle-expiry", &[("family", "ipv6")]);
    reviewed = reviewed.set("accept-queue-overflow", &[("family", "ipv6")]);
    reviewed = reviewed.set("tw-recycle-nat", &[("family", "ipv6"), ("recycle", "model")]);
    reviewed.main()
}
