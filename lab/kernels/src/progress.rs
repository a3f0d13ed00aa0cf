//! The progress of adding a kernel.

/// The progress of adding a kernel. Readers compute the rate themselves, from the
/// time of each report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The next step begins: a clause such as `fetching linux-image-...`.
    Step(String),
    /// Bytes of this step that are done.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Total bytes, if known.
        total: Option<u64>,
    },
}
