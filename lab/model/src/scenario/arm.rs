//! One run of a scenario's network, and what it is for.

use serde::{Deserialize, Serialize};

use faultlab_net::topology::Topology;

/// What an arm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArmKind {
    /// The healthy network.
    Control,
    /// The same with one thing changed.
    Fault,
    /// The fault met in another way.
    Variant,
    /// The fault with something that people tried against it.
    Remedy,
}

/// One run of a scenario in one environment: its network, and what it is for.
///
/// [`Arms`](super::Arms) makes them. Name and kind are for the engine and for
/// reports; the play is given neither.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The name in tables and after `--arm`.
    pub name: &'static str,
    /// What it is for.
    pub kind: ArmKind,
    /// The one thing in which it differs, in prose: from the control for the
    /// fault, from the fault for most others.
    pub change: &'static str,
    /// Whether it means something in its environment.
    pub meant: bool,
    /// Its network.
    pub network: Topology,
    /// The difference from the arm that it starts from, one line for each typed
    /// edit: `node: sysctl net.ipv4.tcp_timestamps=0`.
    pub edits: Vec<String>,
}

impl Arm {
    /// Whether it means something here, and is not left out: `only` names variants
    /// and remedies to narrow to. Control and fault always stay, since the verdict
    /// is their difference.
    #[must_use]
    pub fn is_wanted(&self, only: &[String]) -> bool {
        let named = || only.is_empty() || only.iter().any(|name| name == self.name);
        self.meant && (matches!(self.kind, ArmKind::Control | ArmKind::Fault) || named())
    }
}
