//! The clocks that timestamp frames.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The current time on CLOCK_MONOTONIC.
///
/// # Panics
/// Never on Linux: the clock always exists.
#[must_use]
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists").into()
}

/// The offset of CLOCK_REALTIME from CLOCK_MONOTONIC. Times from several rings
/// are comparable only if converted with the same offset.
///
/// # Panics
/// Never on Linux: the clocks always exist.
pub(crate) fn wall_offset() -> Duration {
    // The thread may be preempted between two readings; the shortest of five
    // readings is exact enough.
    let read = |_| {
        let before = now();
        let wall: Duration = clock_gettime(ClockId::CLOCK_REALTIME).expect("CLOCK_REALTIME exists").into();
        (now().saturating_sub(before), wall.saturating_sub(before))
    };
    (0..5).map(read).min().expect("there are five").1
}
