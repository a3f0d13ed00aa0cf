//! What a fault is: a card that tells its story, the arms that prove it, the
//! eras of kernels that show it.

mod arm;
mod era;
mod ground;
mod need;
mod setting;

use faultlab_net::topology::Topology;

pub use arm::{Arm, ArmKind};
pub use era::{Era, Shows};
pub use ground::{Clock, Ground};
pub use need::Need;
pub use setting::{Setting, Values};

/// One production fault: all of a scenario but its play.
#[derive(Debug)]
pub struct Fault {
    /// Its story.
    pub card: Card,
    /// What the kernel or the privileges must offer.
    pub needs: &'static [Need],
    /// Whether it may leave its kernel unable to go on: then it has a guest of
    /// its own.
    pub wedges: bool,
    /// Whether its arms run one after another, because they set what this
    /// kernel has only once, or would slow each other down.
    pub apart: fn(&Ground) -> bool,
    /// How an exercise looks whether the fault is cured.
    pub recheck: Recheck,
    /// What `--set` can change.
    pub settings: &'static [Setting],
    /// Control first, then the fault, then variants and remedies.
    pub arms: &'static [Arm],
    /// Tried in order; the first that recognises the kernel is its era.
    pub eras: &'static [Era],
    /// The row that people noticed.
    pub symptom: Symptom,
    /// The network of an arm.
    pub topology: fn(&Plan<'_>) -> Topology,
}

/// How an exercise looks whether a trainee has cured the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// It plays the probes again, on the network as it then is: they delete and
    /// stall nothing.
    Replay,
    /// The play stays where the fault stands, and
    /// looks again.
    Look,
    /// Not at all, it is no exercise: nothing ends the fault once it is there.
    Never,
}

/// The story of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    /// The name on the command line.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// What it belongs to.
    pub family: &'static str,
    /// What people saw, in their kind of words.
    pub saw: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// The kernel function that decides.
    pub function: &'static str,
    /// What ends it, and since when.
    pub cure: &'static str,
    /// Commits, issues, RFCs.
    pub reading: &'static [&'static str],
}

/// The symptom: a row, and what a healthy network shows in it.
#[derive(Debug, Clone, Copy)]
pub struct Symptom {
    /// The row.
    pub row: &'static str,
    /// Its cell in a healthy network.
    pub healthy: &'static str,
}

/// One arm on its ground.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The kernel and the settings.
    pub ground: &'a Ground,
    /// The arm.
    pub arm: &'a Arm,
    /// The name of the arm whose network this is: the arm's own, except where
    /// a test takes the cause away and gives the fault the control's.
    pub acts: &'a str,
}

impl Plan<'_> {
    /// Whether the cause is there: in every arm but the control.
    #[must_use]
    pub fn faulty(&self) -> bool {
        self.acts != "control"
    }

    /// A name for a device that no other arm of the scenario has: the kernel's
    /// log knows no namespaces, only names. `prefix` and the last word of the
    /// arm's name must be 14 characters together at most.
    #[must_use]
    pub fn own_device(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.acts.rsplit('-').next().unwrap_or(self.acts))
    }

    /// Whether this is the arm of that name.
    #[must_use]
    pub fn is(&self, arm: &str) -> bool {
        self.acts == arm
    }
}

impl Fault {
    /// The era of a kernel.
    #[must_use]
    pub fn era(&self, ground: &Ground) -> Option<&'static Era> {
        self.eras.iter().find(|era| (era.recognise)(ground))
    }

    /// The arms that mean something on this ground, narrowed to `only` where
    /// that names any: control and fault stay, since the verdict is their
    /// difference.
    #[must_use]
    pub fn arms_on(&self, ground: &Ground, only: &[String]) -> Vec<&'static Arm> {
        let wanted = |arm: &Arm| {
            matches!(arm.kind, ArmKind::Control | ArmKind::Fault)
                || only.is_empty()
                || only.iter().any(|o| o == arm.name)
        };
        self.arms.iter().filter(|a| (a.meant)(ground) && wanted(a)).collect()
    }

    /// Whether its timers are shorter on a real clock than in virtual time.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.settings.iter().any(|s| matches!(s.values, Values::Number { short, real, .. } if short != real))
    }
}
