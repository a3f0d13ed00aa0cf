//! What a fault is: a card that tells its story, the arms that prove it, the
//! eras of kernels that show it.

mod arm;
mod arms;
mod edits;
mod era;
mod ground;
mod need;
mod setting;
mod setup;

use std::collections::BTreeMap;
use std::fmt;

use faultlab_net::kernel::Kernel;

pub use arm::{Arm, ArmKind};
pub use arms::{Arms, Control};
pub use era::{Era, Shows};
pub use ground::{Clock, Ground};
pub use need::Need;
pub use setting::{Setting, Values};
pub use setup::Setup;

/// One production fault: all of a scenario but its play. It lives as long as the
/// program.
pub struct Fault {
    /// Its story.
    pub card: Card,
    /// The row that people noticed.
    pub symptom: Symptom,
    /// What the kernel or the privileges must offer.
    pub needs: &'static [Need],
    /// Whether it may leave its kernel unable to go on: then it has a guest of
    /// its own.
    pub needs_own_guest: bool,
    /// Whether its arms run one after another, because they set what this
    /// kernel has only once, or would slow each other down.
    pub sequential: fn(&Ground) -> bool,
    /// How an exercise looks whether the fault is cured.
    pub recheck: Recheck,
    /// What `--set` can change.
    pub settings: &'static [Setting],
    /// Tried in order; the first that recognises the kernel is its era.
    pub eras: &'static [Era],
    arms: Box<ArmsOn>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fault").field(&self.card.name).finish()
    }
}

/// Makes the arms of an environment.
type ArmsOn = dyn Fn(&Ground) -> Vec<Arm> + Send + Sync;

/// The era of a fault for which none is given.
const ONLY_ERA: &[Era] = &[Era::every_kernel("no kernel is known to differ")];

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

impl Fault {
    /// A fault: its story, the row that people noticed with its cell in a healthy
    /// network, and its arms. It needs veth, and every kernel shows it, until
    /// that is said otherwise.
    #[must_use]
    pub fn new(
        card: Card,
        symptom: (&'static str, &'static str),
        arms: impl Fn(&Ground) -> Vec<Arm> + Send + Sync + 'static,
    ) -> Self {
        let (row, healthy) = symptom;
        Self {
            card,
            symptom: Symptom { row, healthy },
            needs: &[Need::Veth],
            needs_own_guest: false,
            sequential: |_| false,
            recheck: Recheck::Replay,
            settings: &[],
            eras: ONLY_ERA,
            arms: Box::new(arms),
        }
    }

    /// Every arm, with the defaults of the running kernel: control first, then the
    /// fault, then variants and remedies.
    #[must_use]
    pub fn arms(&self) -> Vec<Arm> {
        (self.arms)(&Ground::new(self, Kernel::running(), Clock::Real, &BTreeMap::new()))
    }

    /// The era of a kernel.
    #[must_use]
    pub fn era(&self, ground: &Ground) -> Option<&'static Era> {
        self.eras.iter().find(|era| (era.recognise)(ground))
    }

    /// The arms that mean something on this ground, narrowed to `only` where
    /// that names any: control and fault stay, since the verdict is their
    /// difference.
    #[must_use]
    pub fn arms_on(&self, ground: &Ground, only: &[String]) -> Vec<Arm> {
        (self.arms)(ground).into_iter().filter(|arm| arm.is_wanted(only)).collect()
    }

    /// Whether its timers are shorter on a real clock than in virtual time.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.settings.iter().any(|s| matches!(s.values, Values::Number { short, real, .. } if short != real))
    }
}
