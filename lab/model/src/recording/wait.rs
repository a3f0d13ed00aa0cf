//! What the lab waited for, and for how long.

use std::time::Duration;

use super::Task;

/// Something that the lab waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The host.
    pub host: String,
    /// What the lab waited for.
    pub what: String,
    /// How long, as last observed, on the machine's clock.
    pub waited: Duration,
    /// The task that waited, if there was one.
    pub task: Option<Task>,
}
