//! One scenario with the whole of faultlab's command line around it:
//!
//! ```console
//! $ cargo run -- show mtu-black-hole
//! $ cargo run -- run
//! ```

mod mtu_black_hole;

use std::process::ExitCode;

use lab::Catalogue;

/// What the kernels did when a person read it, by `scenario@era`.
fn snapshots(name: &str) -> Option<&'static str> {
    match name {
        "mtu-black-hole@every-kernel" => Some(include_str!("../snapshots/mtu-black-hole@every-kernel.snap")),
        _ => None,
    }
}

fn main() -> ExitCode {
    lab::cli::main(&Catalogue::new(vec![mtu_black_hole::scenario()], snapshots))
}
