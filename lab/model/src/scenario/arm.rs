//! One run of a scenario's network, and what it is for.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Play;
use faultlab_base::error::Result;
use faultlab_engine::stage::Stage;
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

/// One run of a scenario in one environment: its network, and its play with the
/// conduct that the arm gives it.
///
/// [`Arms`](super::Arms) makes them. Name and kind are for the engine and for
/// reports; the play is given neither.
#[derive(Clone)]
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
    pub(super) script: Rc<dyn Script>,
}

impl fmt::Debug for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arm").field("name", &self.name).field("edits", &self.edits).finish_non_exhaustive()
    }
}

impl Arm {
    /// The play of the scenario with the conduct of this arm.
    pub(crate) fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a> {
        self.script.play(stage)
    }

    /// The same arm without its change: network and conduct are those of `base`.
    #[must_use]
    pub fn unchanged_from(&self, base: &Self) -> Self {
        let Self { network, script, .. } = base.clone();
        Self { network, script, edits: vec![], ..self.clone() }
    }
}

/// A play with its conduct, whose type the engine does not know.
pub(super) trait Script {
    fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a>;
}

/// A play and the conduct of one arm.
pub(super) struct Conducted<C, F> {
    pub(super) conduct: C,
    pub(super) play: F,
}

impl<C, F: AsyncFn(&Stage<'_>, &C) -> Result<()>> Script for Conducted<C, F> {
    fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a> {
        Box::pin((self.play)(stage, &self.conduct))
    }
}
