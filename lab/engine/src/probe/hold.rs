//! Processes that block others.

use super::{Holder, RtnlHolder};

/// A process that blocks others until it ends.
#[derive(Debug)]
pub enum Hold {
    /// A reference to a device.
    Device(Holder),
    /// The RTNL mutex.
    Rtnl(RtnlHolder),
}

impl Hold {
    /// Kills the process.
    pub async fn end(self) {
        match self {
            Self::Device(holder) => holder.end(),
            Self::Rtnl(holder) => drop(holder.end().await),
        }
    }
}
