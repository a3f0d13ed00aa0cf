//! What a fault is: a card that tells its story, the arms that prove it, the
//! eras of kernels that show it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::kernel::Kernel;
use crate::stage::Stage;
use crate::topology::Topology;

/// One production fault.
#[derive(Debug)]
pub struct Scenario {
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
    /// The probes, the same in every arm.
    pub play: for<'a> fn(&'a Stage<'a>) -> Play<'a>,
}

/// How an exercise looks whether a trainee has cured the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// It plays the probes again, on the network as it then is: they delete and
    /// stall nothing.
    Replay,
    /// The play [stays](crate::stage::Stage::stays) where the fault stands, and
    /// looks again.
    Look,
    /// Not at all, it is no exercise: nothing ends the fault once it is there.
    Never,
}

/// The probes of one arm, under way.
pub type Play<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

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

/// What an era of kernels does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The fault arm differs from the control.
    Reproduced,
    /// It does not.
    Immune,
}

/// A range of kernels that behave alike.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    /// The name in `snapshots/<scenario>@<era>.snap`.
    pub name: &'static str,
    /// The kernels, in words.
    pub kernels: &'static str,
    /// The commit or reason that ended the era before.
    pub since: &'static str,
    /// What is expected of it.
    pub shows: Shows,
    /// A feature first, a version where no feature tells.
    pub recognise: fn(&Ground) -> bool,
}

impl Era {
    /// The kernels, in words and by a test, on which the fault is reproduced.
    #[must_use]
    pub const fn new(name: &'static str, kernels: &'static str, recognise: fn(&Ground) -> bool) -> Self {
        Self { name, kernels, since: "", shows: Shows::Reproduced, recognise }
    }

    /// The only era of a fault that every kernel shows, and why that is so.
    #[must_use]
    pub const fn every_kernel(since: &'static str) -> Self {
        Self::new("every-kernel", "every kernel, today's too", |_| true).since(since)
    }

    /// The commit or reason that ended the era before.
    #[must_use]
    pub const fn since(mut self, since: &'static str) -> Self {
        self.since = since;
        self
    }

    /// The kernels do not show the fault.
    #[must_use]
    pub const fn immune(mut self) -> Self {
        self.shows = Shows::Immune;
        self
    }
}

/// What a scenario asks of the kernel or of the privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Virtual Ethernet pairs.
    Veth,
    /// Source or destination NAT by nf_tables.
    Nat,
    /// Entries and events of conntrack.
    Conntrack,
    /// Frames through this process.
    PacketSocket,
    /// The qdisc `tbf`.
    TokenBucket,
    /// The qdisc `netem`.
    Netem,
    /// A page of memory that a program answers for.
    Userfaultfd,
    /// The kernel log, if it can be read; else a row says that it cannot.
    KernelLog,
    /// A kernel that nothing else runs on.
    OwnKernel,
}

impl Need {
    /// The kernel's CONFIG names behind it.
    #[must_use]
    pub const fn config(self) -> &'static str {
        match self {
            Self::Veth => "CONFIG_VETH",
            Self::Nat => "CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
            Self::Conntrack => "CONFIG_NF_CONNTRACK, CONFIG_NF_CT_NETLINK",
            Self::PacketSocket => "CONFIG_PACKET",
            Self::TokenBucket => "CONFIG_NET_SCH_TBF",
            Self::Netem => "CONFIG_NET_SCH_NETEM",
            Self::Userfaultfd => "CONFIG_USERFAULTFD",
            Self::KernelLog => "CONFIG_PRINTK",
            Self::OwnKernel => "a virtual machine",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Nat => "nf_tables NAT",
            Self::Conntrack => "conntrack",
            Self::PacketSocket => "packet socket",
            Self::TokenBucket => "tbf",
            Self::Netem => "netem",
            Self::Userfaultfd => "userfaultfd",
            Self::KernelLog => "kernel log (optional)",
            Self::OwnKernel => "a kernel of its own",
        })
    }
}

/// Something that `--set` can change.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What it is, for `show`.
    pub about: &'static str,
    /// What it can be.
    pub values: Values,
}

/// The values of a setting.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
    /// A whole number of a unit.
    Number {
        /// The unit, in the plural.
        unit: &'static str,
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
        /// The default on the kernel's real clock.
        short: u64,
        /// The default in virtual time: the kernel's own default.
        real: u64,
    },
}

impl Setting {
    /// A number of seconds, `short` on a real clock and `real` in virtual time.
    #[must_use]
    pub const fn seconds(key: &'static str, about: &'static str, short: u64, real: u64) -> Self {
        Self { key, about, values: Values::Number { unit: "seconds", least: 1, most: real, short, real } }
    }

    /// A number from 1 to `most` of a unit, `short` on a real clock and `real` in
    /// virtual time.
    #[must_use]
    pub const fn number(
        key: &'static str,
        about: &'static str,
        unit: &'static str,
        most: u64,
        [short, real]: [u64; 2],
    ) -> Self {
        Self { key, about, values: Values::Number { unit, least: 1, most, short, real } }
    }

    /// The default on a clock.
    #[must_use]
    pub fn default(&self, clock: Clock) -> String {
        match (self.values, clock) {
            (Values::Choice(words), _) => words[0].to_owned(),
            (Values::Number { short, .. }, Clock::Real) => short.to_string(),
            (Values::Number { real, .. }, Clock::Virtual) => real.to_string(),
        }
    }

    /// Checks a value from the command line.
    ///
    /// # Errors
    /// One sentence that names the words or the range.
    pub fn check(&self, value: &str) -> std::result::Result<(), String> {
        match self.values {
            Values::Choice(words) if words.contains(&value) => Ok(()),
            Values::Choice(words) => {
                Err(format!("{} is one of {}, not {value:?}", self.key, words.join(", ")))
            }
            Values::Number { unit, least, most, .. } => match value.parse::<u64>() {
                Ok(n) if (least..=most).contains(&n) => Ok(()),
                _ => Err(format!("{} is a number of {unit} from {least} to {most}, not {value:?}", self.key)),
            },
        }
    }
}

/// Which clock the kernel's timers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The wall's: timers that take minutes are shortened by sysctl.
    Real,
    /// A guest's, which jumps to the next timer when all sleep.
    Virtual,
}

/// What a scenario stands on: a kernel, its clock, and the settings.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The kernel.
    pub kernel: Kernel,
    /// Its clock.
    pub clock: Clock,
    /// Every setting of the scenario with its value.
    pub settings: BTreeMap<String, String>,
}

impl Ground {
    /// The ground of a scenario: defaults, replaced by what was set.
    #[must_use]
    pub fn new(scenario: &Scenario, kernel: Kernel, clock: Clock, set: &BTreeMap<String, String>) -> Self {
        let value = |s: &Setting| set.get(s.key).cloned().unwrap_or_else(|| s.default(clock));
        let settings = scenario.settings.iter().map(|s| (s.key.to_owned(), value(s))).collect();
        Self { kernel, clock, settings }
    }

    /// A setting as a word.
    ///
    /// # Panics
    /// When the scenario has no such setting.
    #[must_use]
    pub fn word(&self, key: &str) -> &str {
        self.settings.get(key).unwrap_or_else(|| panic!("the scenario has no setting {key:?}"))
    }

    /// A setting as a number.
    ///
    /// # Panics
    /// When the scenario has no such setting or it is no number.
    #[must_use]
    pub fn number(&self, key: &str) -> u64 {
        self.word(key).parse().unwrap_or_else(|_| panic!("setting {key:?} is no number"))
    }

    /// A setting as a number of seconds of the machine's clock.
    #[must_use]
    pub fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key))
    }
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

impl Scenario {
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
