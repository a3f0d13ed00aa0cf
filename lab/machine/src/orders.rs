//! What a guest is asked to do; it finds this in its initramfs.

use serde::{Deserialize, Serialize};

use super::exec::ExecOrder;
use super::job::Job;
use faultlab_model::scenario::Clock;

/// The orders of a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Its jobs, in order.
    pub jobs: Vec<Job>,
    /// A command to run instead of jobs.
    pub exec: Option<ExecOrder>,
    /// The clock that its timers follow.
    pub clock: Clock,
    /// The seed of its randomness.
    pub seed: u64,
}
