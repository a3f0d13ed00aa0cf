//! How far adding a kernel has come.

/// How far adding a kernel has come. The rate is for the reader to work out,
/// by the clock at which it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The next step begins: a clause such as `fetching linux-image-...`.
    Step(String),
    /// Of this step, so many bytes are done.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
}
