//! One run of a scenario's network, and what it is for.

use serde::{Deserialize, Serialize};

use super::Ground;

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

/// One run of a scenario's network.
#[derive(Debug, Clone, Copy)]
pub struct Arm {
    /// The name in tables and after `--arm`.
    pub name: &'static str,
    /// What it is for.
    pub kind: ArmKind,
    /// The one thing in which it differs: from the control for the fault, from
    /// the fault for the others.
    pub change: &'static str,
    /// Whether it means something in an era.
    pub meant: fn(&Ground) -> bool,
}

impl Arm {
    const fn new(name: &'static str, kind: ArmKind, change: &'static str) -> Self {
        Self { name, kind, change, meant: |_| true }
    }

    /// The healthy network.
    #[must_use]
    pub const fn control(change: &'static str) -> Self {
        Self::new("control", ArmKind::Control, change)
    }

    /// The network with the one thing changed that causes the fault.
    #[must_use]
    pub const fn fault(change: &'static str) -> Self {
        Self::new("fault", ArmKind::Fault, change)
    }

    /// The fault met in another way.
    #[must_use]
    pub const fn variant(name: &'static str, change: &'static str) -> Self {
        Self::new(name, ArmKind::Variant, change)
    }

    /// The fault with something tried against it.
    #[must_use]
    pub const fn remedy(name: &'static str, change: &'static str) -> Self {
        Self::new(name, ArmKind::Remedy, change)
    }

    /// Leaves the arm out where `meant` says no.
    #[must_use]
    pub const fn only_where(mut self, meant: fn(&Ground) -> bool) -> Self {
        self.meant = meant;
        self
    }
}
