//! The clocks that frames are stamped by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time of CLOCK_MONOTONIC.
///
/// # Panics
/// Never on Linux: the clock always exists.
#[must_use]
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists").into()
}

/// By how much CLOCK_REALTIME is ahead of CLOCK_MONOTONIC. Times of several
/// rings can be compared only by the same number.
///
/// # Panics
/// Never on Linux: the clocks always exist.
pub(crate) fn ahead() -> Duration {
    // Between two looks the thread may have to wait; the best of a few is exact.
    let look = |_| {
        let before = now();
        let wall: Duration = clock_gettime(ClockId::CLOCK_REALTIME).expect("CLOCK_REALTIME exists").into();
        (now().saturating_sub(before), wall.saturating_sub(before))
    };
    (0..5).map(look).min().expect("there are five").1
}
