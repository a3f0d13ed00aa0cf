//! What the kernel reports: its log, and the packets that it drops.

use super::drops::{Attached, SharedDrops};
use super::kernel_log::KernelLog;
use super::shared_log::SharedLog;
use faultlab_base::error::Result;

/// The kernel's reports, shared by all arms of a worker.
#[derive(Debug, Default)]
pub struct KernelReports {
    /// Its log.
    pub log: SharedLog,
    /// The packets that it drops.
    pub drops: SharedDrops,
}

/// The sources of the reports, opened with the privileges of the machine and not read
/// yet.
#[derive(Debug)]
pub struct Opened {
    log: Result<KernelLog>,
    drops: Option<Result<Attached>>,
}

impl Opened {
    /// Opens the log and, if `asked`, has the kernel record dropped packets.
    /// Privileges are checked now and not later: a worker does this before it leaves
    /// the machine's namespaces.
    #[must_use]
    pub fn open(asked: bool) -> Self {
        Self { log: KernelLog::open(), drops: asked.then(Attached::attach) }
    }

    /// Starts to listen, in this user namespace, to the sources that could be opened.
    #[must_use]
    pub fn listen(self) -> KernelReports {
        let drops = self.drops.and_then(Result::ok).map(Attached::listen);
        KernelReports {
            log: SharedLog::new(self.log.ok()),
            drops: drops.and_then(Result::ok).unwrap_or_default(),
        }
    }

    /// Whether the log can be read, and whether dropped packets can be observed.
    ///
    /// # Errors
    /// For each, why not.
    pub fn check_readable(self) -> (Result<()>, Result<()>) {
        let drops = self.drops.map_or(Ok(()), |attached| attached?.listen().map(drop));
        (self.log.map(drop), drops)
    }
}
