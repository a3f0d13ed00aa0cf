//! The conventions shared by a guest and the machine around it: paths in the
//! initramfs, and the reports on the second serial port.

pub mod frame;

use serde::{Deserialize, Serialize};

use crate::job::Job;
use faultlab_model::scenario::Clock;

pub use frame::{Decoder, Frame};

/// The path of the orders in the initramfs.
pub const ORDERS: &str = "/orders.json";
/// The kind of a frame whose body is a [`Report`](crate::job::Report) in JSON.
pub const REPORT: u8 = 1;
/// The kind of a frame whose body is a piece of a shell's standard output.
pub const STDOUT: u8 = 2;
/// The kind of a frame whose body is a piece of a shell's standard error.
pub const STDERR: u8 = 3;
/// The directory of the guest's modules: `NNN-NAME.ko`, and [`MODULE_LIST`].
pub const MODULES: &str = "/modules";
/// The file names of the modules in load order, one per line.
pub const MODULE_LIST: &str = "/modules/order";
/// The path of busybox in the guest, for a shell.
pub const BUSYBOX: &str = "/bin/busybox";

/// The orders of a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Its jobs, in order.
    pub jobs: Vec<Job>,
    /// The clock that its timers follow.
    pub clock: Clock,
    /// The seed of its randomness.
    pub seed: u64,
}
