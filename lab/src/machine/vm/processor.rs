//! The host's processor that a guest runs on.
//!
//! QEMU's main loop and its emulated processor take turns at every jump of
//! virtual time, 60,000 times in five days. On two of the host's processors
//! each turn wakes one that sleeps; on one, a guest that idles for five days
//! took 10 s where it had taken 16 s.

use std::sync::Mutex;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// How many guests of this process run on each of the processors.
static TAKEN: Mutex<Vec<u32>> = Mutex::new(vec![]);

/// A processor of the host, until it is dropped.
#[derive(Debug)]
pub(super) struct Processor(usize);

impl Processor {
    /// The one with the fewest guests among those that this process may use;
    /// none where that cannot be told.
    pub(super) fn take() -> Option<Self> {
        let may = sched_getaffinity(Pid::this()).ok()?;
        let mut usable: Vec<_> = (0..CpuSet::count()).filter(|&n| may.is_set(n) == Ok(true)).collect();
        // Another process begins elsewhere.
        let first = usize::try_from(Pid::this().as_raw()).unwrap_or_default() % usable.len().max(1);
        usable.rotate_left(first);
        let mut taken = TAKEN.lock().ok()?;
        taken.resize(CpuSet::count(), 0);
        let number = usable.into_iter().min_by_key(|&n| taken[n])?;
        taken[number] += 1;
        Some(Self(number))
    }

    /// What sched_setaffinity(2) takes.
    pub(super) fn set(&self) -> nix::Result<CpuSet> {
        let mut set = CpuSet::new();
        set.set(self.0)?;
        Ok(set)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        if let Ok(mut taken) = TAKEN.lock() {
            taken[self.0] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_spread_over_the_processors() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let all: Vec<_> = (0..processors).map(|_| Processor::take().unwrap()).collect();
        let mut numbers: Vec<_> = all.iter().map(|p| p.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), processors);
        drop(all);
        assert!(TAKEN.lock().unwrap().iter().all(|&guests| guests == 0));
    }
}
