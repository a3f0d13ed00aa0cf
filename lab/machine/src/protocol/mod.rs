//! What a guest and the machine around it have agreed on: where the initramfs
//! has what, and how reports go over the second serial port.

pub mod frame;

use serde::{Deserialize, Serialize};

use crate::job::Job;
use faultlab_model::scenario::Clock;

pub use frame::{Decoder, Frame};

/// Where the initramfs has the orders.
pub const ORDERS: &str = "/orders.json";
/// The kind of a frame whose body is a [`Report`](crate::job::Report) in JSON.
pub const REPORT: u8 = 1;
/// Where the guest finds its modules: `NNN-NAME.ko`, and [`MODULE_LIST`].
pub const MODULES: &str = "/modules";
/// The modules' file names in load order, one a line.
pub const MODULE_LIST: &str = "/modules/order";
/// Where the guest has busybox, for a shell.
pub const BUSYBOX: &str = "/bin/busybox";

/// What a guest is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// What it does, one after the other.
    pub jobs: Vec<Job>,
    /// Which clock its timers follow.
    pub clock: Clock,
    /// Where its randomness begins.
    pub seed: u64,
}
