//! What a kernel tells of itself: its log, and the packets that it drops.

use super::drops::{Attached, SharedDrops};
use super::kernel_log::KernelLog;
use super::shared_log::SharedLog;
use faultlab_base::error::Result;

/// What the kernel tells, as all arms of a worker share it.
#[derive(Debug, Default)]
pub struct Voice {
    /// Its log.
    pub log: SharedLog,
    /// What it drops.
    pub drops: SharedDrops,
}

/// What tells it, opened with the privileges of the machine and not heard yet.
#[derive(Debug)]
pub struct Opened {
    log: Result<KernelLog>,
    drops: Option<Result<Attached>>,
}

impl Opened {
    /// Opens the log, and has the kernel note what it drops where that is
    /// `asked` for. Whether this process may is asked now and not later: a
    /// worker does this before it leaves the machine's namespaces.
    #[must_use]
    pub fn open(asked: bool) -> Self {
        Self { log: KernelLog::open(), drops: asked.then(Attached::attach) }
    }

    /// Listens from now on, to what may be heard, in this user namespace.
    #[must_use]
    pub fn listen(self) -> Voice {
        let drops = self.drops.and_then(Result::ok).map(Attached::here);
        Voice { log: SharedLog::new(self.log.ok()), drops: drops.and_then(Result::ok).unwrap_or_default() }
    }

    /// Whether the log can be read, and whether what is dropped can be seen.
    ///
    /// # Errors
    /// Each for itself: why not.
    pub fn silences(self) -> (Result<()>, Result<()>) {
        let drops = self.drops.map_or(Ok(()), |attached| attached?.here().map(drop));
        (self.log.map(drop), drops)
    }
}
