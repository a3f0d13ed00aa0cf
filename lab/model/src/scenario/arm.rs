//! One run of a scenario's network, and its purpose.

use serde::{Deserialize, Serialize};

use faultlab_net::topology::Topology;

/// The purpose of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArmKind {
    /// The healthy network.
    Control,
    /// The same network with one change.
    Fault,
    /// The fault, triggered in another way.
    Variant,
    /// The fault, with a countermeasure that people tried.
    Remedy,
}

/// One run of a scenario in one environment: its network, and its purpose.
///
/// [`Arms`](super::Arms) makes them. Name and kind are for the engine and for
/// reports; the play does not receive them.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The name in tables and after `--arm`.
    pub name: &'static str,
    /// Its purpose.
    pub kind: ArmKind,
    /// The one difference, in prose: from the control for the fault, from the fault
    /// for most other arms.
    pub change: &'static str,
    /// Whether it applies in this environment. If not, it is not played.
    pub applies: bool,
    /// Its network.
    pub network: Topology,
    /// The difference from its base arm, one line for each typed edit: `node: sysctl
    /// net.ipv4.tcp_timestamps=0`.
    pub edits: Vec<String>,
    /// Why its change has no effect with these settings, if the author gave a reason: `a
    /// keepalive of 120 s is too slow for a timeout of 100 s`. An outcome without a
    /// reference quotes it if the change indeed had no effect.
    pub no_effect: Option<String>,
}

impl Arm {
    /// Whether it applies and is selected. `only` lists the variants and remedies to run;
    /// if empty, all of them run. Control and fault always run, because the verdict is
    /// their difference.
    #[must_use]
    pub fn is_wanted(&self, only: &[String]) -> bool {
        let named = || only.is_empty() || only.iter().any(|name| name == self.name);
        self.applies && (matches!(self.kind, ArmKind::Control | ArmKind::Fault) || named())
    }
}
