//! Processes that block others.

use super::{DeviceHolder, RtnlHolder};

/// A process that blocks others until it ends.
#[derive(Debug)]
pub enum Blocker {
    /// A reference to a device.
    Device(DeviceHolder),
    /// The RTNL mutex.
    Rtnl(RtnlHolder),
}

impl Blocker {
    /// Kills the process.
    pub async fn end(self) {
        match self {
            Self::Device(holder) => holder.end(),
            Self::Rtnl(holder) => drop(holder.end().await),
        }
    }
}
