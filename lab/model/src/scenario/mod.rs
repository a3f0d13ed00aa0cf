//! Faults: a card with the story, the arms that prove the fault, and the eras of
//! kernels that show it.

mod arm;
mod arms;
mod edits;
mod environment;
mod era;
mod limit;
mod need;
pub mod seconds;
mod setting;
mod setup;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use faultlab_net::kernel::Kernel;

pub use arm::{Arm, ArmKind};
pub use arms::{Arms, Control};
pub use environment::{Clock, Environment};
pub use era::{Era, Shows};
pub use limit::Limit;
pub use need::Need;
pub use setting::{Follows, Number, Setting, Values};
pub use setup::Setup;

/// One production fault: a scenario without its play. Scenarios are made once and
/// never freed.
pub struct Fault {
    /// Its story.
    pub card: Card,
    /// The row in which people noticed the fault.
    pub symptom: Symptom,
    /// The required kernel features and privileges.
    pub needs: &'static [Need],
    /// Whether the fault may leave its kernel unusable: then no other scenario shares
    /// its guest.
    pub guest_not_shared: bool,
    /// Whether its arms run one after another, because they change something that the
    /// kernel has only once, or would slow each other down.
    pub sequential: fn(&Environment) -> bool,
    /// How an exercise checks whether the fault is cured.
    pub recheck: Recheck,
    /// What `--set` can change.
    pub settings: &'static [Setting],
    /// About how long a play waits in its longest arm, from the settings.
    pub lasts: fn(&Environment) -> Duration,
    /// The eras, tried in order: the first that recognises the kernel applies.
    pub eras: &'static [Era],
    arms: Box<ArmsOn>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fault").field(&self.card.name).finish()
    }
}

/// Makes the arms of an environment.
type ArmsOn = dyn Fn(&Environment) -> Vec<Arm> + Send + Sync;

/// The era of a fault that defines none.
const ONLY_ERA: &[Era] = &[Era::every_kernel("no kernel is known to differ")];

/// How an exercise checks whether a trainee has cured the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// It runs the play again, on the network in its current state. The probes of
    /// such a play delete and stall nothing.
    Replay,
    /// The play pauses while the fault is active, and checks again on request.
    Look,
    /// Never: the fault cannot be an exercise, because nothing ends it.
    Never,
}

/// The story of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    /// The name on the command line.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// The family of faults that it belongs to.
    pub family: &'static str,
    /// What people saw, in their own kind of words.
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

/// The symptom: a row, and its value in a healthy network.
#[derive(Debug, Clone, Copy)]
pub struct Symptom {
    /// The row.
    pub row: &'static str,
    /// Its value in a healthy network.
    pub healthy: &'static str,
}

impl Fault {
    /// A fault: its story, the symptom row with its value in a healthy network, and
    /// its arms. By default it needs veth, and every kernel shows it.
    #[must_use]
    pub fn new(
        card: Card,
        symptom: (&'static str, &'static str),
        arms: impl Fn(&Environment) -> Vec<Arm> + Send + Sync + 'static,
    ) -> Self {
        let (row, healthy) = symptom;
        Self {
            card,
            symptom: Symptom { row, healthy },
            needs: &[Need::Veth],
            guest_not_shared: false,
            sequential: |_| false,
            recheck: Recheck::Replay,
            settings: &[],
            lasts: |_| Duration::ZERO,
            eras: ONLY_ERA,
            arms: Box::new(arms),
        }
    }

    /// Every arm, with the defaults of the running kernel: the control first, then
    /// the fault, then variants and remedies.
    #[must_use]
    pub fn arms(&self) -> Vec<Arm> {
        (self.arms)(&Environment::new(self, Kernel::running(), Clock::Real, &BTreeMap::new()))
    }

    /// The era of a kernel.
    #[must_use]
    pub fn era(&self, env: &Environment) -> Option<&'static Era> {
        self.eras.iter().find(|era| (era.recognise)(env))
    }

    /// The arms that apply in this environment. If `only` is not empty, just
    /// the variants and remedies that it lists; control and fault always stay,
    /// because the verdict is their difference.
    #[must_use]
    pub fn arms_on(&self, env: &Environment, only: &[String]) -> Vec<Arm> {
        (self.arms)(env).into_iter().filter(|arm| arm.is_wanted(only)).collect()
    }

    /// The settings of an environment that are numbers other than the defaults, which
    /// no reviewed outcome has.
    pub fn other_numbers<'a>(
        &'a self,
        clock: Clock,
        value: impl Fn(&str) -> Option<&'a str>,
    ) -> Vec<(&'static str, &'a str)> {
        let settings = self.settings.iter().filter_map(|s| Some((s, value(s.key)?)));
        settings
            .filter(|(s, value)| s.is_other_number(clock, value))
            .map(|(s, value)| (s.key, value))
            .collect()
    }

    /// About how long a run of some arms waits: side by side, or one after another.
    #[must_use]
    pub fn run_lasts(&self, env: &Environment, only: &[String]) -> Duration {
        let arms = if (self.sequential)(env) { self.arms_on(env, only).len() } else { 1 };
        (self.lasts)(env).saturating_mul(u32::try_from(arms).unwrap_or(u32::MAX))
    }

    /// Whether its timers are shorter on a real clock than in virtual time.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.settings.iter().any(|s| matches!(s.values, Values::Number(n) if n.short != n.real))
    }
}
