//! What the lab waited for.

use std::time::Duration;

use super::Task;

/// Something that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// At which host.
    pub host: String,
    /// What it was.
    pub what: String,
    /// For how long when it was last looked at, by the machine's clock.
    pub waited: Duration,
    /// The task that waited, where one did.
    pub task: Option<Task>,
}
