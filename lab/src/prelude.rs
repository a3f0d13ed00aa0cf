//! What a scenario is written with: `use lab::prelude::*;`.

pub use std::time::Duration;

pub use crate::conntrack::{Conntrack, Statistic};
pub use crate::network::{Host, Namespace, sysctl};
pub use crate::probe::{
    Answer, Attempt, Connect, Flow, Reply, Side, UdpClient, UdpServer, address, connect, link, listen,
    neighbour, route,
};
pub use crate::scenario::{
    Arms, Card, Clock, Environment, Era, Limit, Need, Recheck, Scenario, Setting, Setup,
};
pub use crate::stage::Stage;
pub use crate::topology::Topology;
pub use crate::topology::rule::{CtState, Rule};
pub use crate::wire::{Direction, policy};
pub use crate::{Error, Result};
