//! The progress of adding a kernel.

/// A report of progress. The receiver computes a rate from the times of the reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The next step begins: a clause such as `fetching linux-image-...`.
    Step(String),
    /// The progress of the current step.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Total bytes, if known.
        total: Option<u64>,
    },
}
