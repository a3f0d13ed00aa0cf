//! The time stamp counter of this machine.

use std::time::{Duration, Instant};

/// The frequency of this processor's time stamp counter in kHz. A guest under TCG reads
/// this counter unless instructions are counted.
pub(super) fn host_tsc_khz() -> u64 {
    let (first, start) = host_tsc();
    // 20 ms are long compared with readings that are accurate to about a
    // microsecond.
    std::thread::sleep(Duration::from_millis(20));
    let (last, end) = host_tsc();
    let micros = u64::try_from((end - start).as_micros()).unwrap_or(u64::MAX);
    (last - first) * 1000 / micros
}

/// The time stamp counter and the time at which it was read. Of 16 pairs, the one that
/// took the least time is used: a preemption between the two reads falsifies a pair.
fn host_tsc() -> (u64, Instant) {
    let read = || {
        let before = Instant::now();
        // SAFETY: RDTSC has no operands in memory and no side effects; every
        // x86-64 processor has it.
        #[allow(unsafe_code, reason = "the counter is read by an instruction only")]
        let ticks = unsafe { core::arch::x86_64::_rdtsc() };
        (before.elapsed(), ticks, before)
    };
    let (_, ticks, at) = (0..16).map(|_| read()).min_by_key(|(took, ..)| *took).expect("sixteen readings");
    (ticks, at)
}
