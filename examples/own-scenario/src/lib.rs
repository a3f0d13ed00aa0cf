//! One scenario, as a catalogue for the program and for the tests.

mod ttl_too_small;

use std::sync::LazyLock;

use lab::Catalogue;

/// The scenario with its reviewed outcomes.
pub static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::new(vec![ttl_too_small::scenario()], snapshots));

/// The reviewed outcomes, by `scenario@era`.
fn snapshots(name: &str) -> Option<&'static str> {
    match name {
        "ttl-too-small@every-kernel" => Some(include_str!("../snapshots/ttl-too-small@every-kernel.snap")),
        _ => None,
    }
}
