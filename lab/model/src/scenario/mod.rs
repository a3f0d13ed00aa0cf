//! Faults: the card that describes one, the arms that prove it, and the eras of kernels
//! that show it.

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

/// A fault seen in production: a scenario without its play.
pub struct Fault {
    /// Its description.
    pub card: Card,
    /// The row by which the fault is judged.
    pub symptom: Symptom,
    /// The required kernel features and privileges.
    pub needs: &'static [Need],
    /// Whether the fault may leave its kernel unusable, so that no other scenario may run
    /// in the same guest.
    pub guest_not_shared: bool,
    /// Whether its arms run one after another, because they change state that is global to
    /// the kernel, or would slow each other down.
    pub sequential: fn(&Environment) -> bool,
    /// How an exercise checks whether the fault is cured.
    pub recheck: Recheck,
    /// The settings that `--set` can change.
    pub settings: &'static [Setting],
    /// An estimate of how long the play waits in its longest arm, with these settings.
    pub lasts: fn(&Environment) -> Duration,
    /// The eras. The first that recognises the kernel applies.
    pub eras: &'static [Era],
    arms: Box<ArmsOn>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fault").field(&self.card.name).finish()
    }
}

/// Makes the arms for an environment.
type ArmsOn = dyn Fn(&Environment) -> Vec<Arm> + Send + Sync;

/// The default era, for a fault that defines none.
const ONLY_ERA: &[Era] = &[Era::every_kernel("no kernel is known to differ")];

/// How an exercise checks whether a trainee has cured the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// The play runs again on the network in its current state. Its probes must not delete
    /// or stall anything.
    Replay,
    /// The play pauses while the fault is active, and observes it again on request.
    Look,
    /// It does not: the fault cannot be an exercise, because nothing ends it.
    Never,
}

/// The description of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    /// The name on the command line.
    pub name: &'static str,
    /// The title, one line.
    pub title: &'static str,
    /// The family of faults, a heading in `faultlab list`.
    pub family: &'static str,
    /// The symptom as users describe it.
    pub saw: &'static str,
    /// The cause.
    pub cause: &'static str,
    /// The kernel function that makes the decision.
    pub function: &'static str,
    /// What cures it, and since which version.
    pub cure: &'static str,
    /// References: commits, issues, RFCs.
    pub reading: &'static [&'static str],
}

impl Card {
    /// A card that has only a name and a title, for a scenario that a test makes.
    #[must_use]
    pub const fn for_test(name: &'static str, title: &'static str) -> Self {
        Self { name, title, family: "tests", saw: "", cause: "", function: "", cure: "", reading: &[] }
    }
}

/// The symptom: a row, and its value in a healthy network.
#[derive(Debug, Clone, Copy)]
pub struct Symptom {
    /// The name of the row.
    pub row: &'static str,
    /// Its value in a healthy network.
    pub healthy: &'static str,
}

impl Fault {
    /// A fault with its card, its symptom (the row and its value in a healthy network) and
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

    /// All arms, on the running kernel with the default settings: the control, the fault,
    /// then variants and remedies.
    #[must_use]
    pub fn arms(&self) -> Vec<Arm> {
        (self.arms)(&Environment::new(self, Kernel::running(), Clock::Real, &BTreeMap::new()))
    }

    /// The era of the environment's kernel; `None` if no era recognises it.
    #[must_use]
    pub fn era(&self, env: &Environment) -> Option<&'static Era> {
        self.eras.iter().find(|era| (era.recognise)(env))
    }

    /// The arms that apply in this environment and are selected by `only`, see
    /// [`Arm::is_wanted`].
    #[must_use]
    pub fn arms_on(&self, env: &Environment, only: &[String]) -> Vec<Arm> {
        (self.arms)(env).into_iter().filter(|arm| arm.is_wanted(only)).collect()
    }

    /// The numeric settings that differ from their defaults, with their values. No reviewed
    /// outcome exists for these. `value` looks up a setting.
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

    /// An estimate of how long a run of the selected arms waits: the longest arm, or all of
    /// them if they are sequential.
    #[must_use]
    pub fn run_lasts(&self, env: &Environment, only: &[String]) -> Duration {
        let arms = if (self.sequential)(env) { self.arms_on(env, only).len() } else { 1 };
        (self.lasts)(env).saturating_mul(u32::try_from(arms).unwrap_or(u32::MAX))
    }

    /// Whether the defaults of its timers differ between a real clock and virtual time.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.settings.iter().any(|s| matches!(s.values, Values::Number(n) if n.short != n.real))
    }
}
