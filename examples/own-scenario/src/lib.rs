//! One scenario, as a catalogue for the program and for the tests.

mod mtu_black_hole;

use std::sync::LazyLock;

use lab::Catalogue;

/// The scenario with its reviewed outcomes.
pub static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::new(vec![mtu_black_hole::scenario()], snapshots));

/// The reviewed outcomes, by `scenario@era`.
fn snapshots(name: &str) -> Option<&'static str> {
    match name {
        "mtu-black-hole@every-kernel" => Some(include_str!("../snapshots/mtu-black-hole@every-kernel.snap")),
        _ => None,
    }
}
