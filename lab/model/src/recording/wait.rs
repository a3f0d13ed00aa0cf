//! A wait of the lab that may not have ended.

use std::time::Duration;

use super::Task;

/// What the lab waited for, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The host.
    pub host: String,
    /// The condition or the operation.
    pub what: String,
    /// How long, as last observed, on the machine's clock.
    pub waited: Duration,
    /// The task that waits in the kernel, if there is one.
    pub task: Option<Task>,
}
