//! The arms of a scenario: the control, which is a healthy network and the conduct of the
//! play, and the edits that derive the other arms.
//!
//! ```
//! use faultlab_model::scenario::Arms;
//! use faultlab_net::topology::{Family, Topology};
//!
//! #[derive(Debug, Clone)]
//! struct Conduct {
//!     requests: u32,
//! }
//!
//! let network = Topology::new().hosts(["client", "server"]).link("client 10.0.0.1/24", "server 10.0.0.2/24");
//! let arms = Arms::control("one request", network, Conduct { requests: 1 })
//!     .fault("a hundred requests", |arm| arm.requests = 100)
//!     .remedy("longer-queue", "somaxconn=200 on the server", |arm| arm.sysctl("server", "net.core.somaxconn", 200));
//! assert_eq!(arms.edits("fault"), ["conduct: requests: 1 -> 100"]);
//! assert_eq!(arms.edits("longer-queue"), ["server: sysctl net.core.somaxconn=200"]);
//! ```

use std::fmt;

use super::arm::{Arm, ArmKind};
use super::edits::differences;
use super::setup::Setup;
use faultlab_net::topology::{Family, Topology};

/// The control arm, from which [`Control::fault`] derives the fault.
#[derive(Debug)]
#[must_use = "a fault is proved by two arms"]
pub struct Control<C>(Draft<C>);

/// The arms of a scenario in one environment: the control, the fault, and any others.
#[derive(Debug)]
pub struct Arms<C> {
    list: Vec<Draft<C>>,
    /// Whether the arms added next apply.
    applies: bool,
}

#[derive(Debug)]
struct Draft<C> {
    name: &'static str,
    kind: ArmKind,
    change: &'static str,
    applies: bool,
    no_effect: Option<String>,
    /// The position of its base arm; for the control, its own.
    base: usize,
    setup: Setup<C>,
}

/// The positions of the first two arms.
const CONTROL: usize = 0;
const FAULT: usize = 1;

impl<C: Clone> Arms<C> {
    /// The healthy network, and the conduct of the play in it.
    pub fn control(change: &'static str, network: Topology, conduct: C) -> Control<C> {
        let setup = Setup { network, conduct };
        Control(Draft {
            name: "control",
            kind: ArmKind::Control,
            change,
            applies: true,
            no_effect: None,
            base: CONTROL,
            setup,
        })
    }

    /// The fault, triggered in another way: the fault with an edit.
    #[must_use]
    pub fn variant(self, name: &'static str, change: &'static str, edit: impl FnOnce(&mut Setup<C>)) -> Self {
        self.and(name, ArmKind::Variant, change, FAULT, edit)
    }

    /// Another cause of the same symptom: the control with a different edit.
    #[must_use]
    pub fn variant_of_control(
        self,
        name: &'static str,
        change: &'static str,
        edit: impl FnOnce(&mut Setup<C>),
    ) -> Self {
        self.and(name, ArmKind::Variant, change, CONTROL, edit)
    }

    /// The fault with a countermeasure.
    #[must_use]
    pub fn remedy(self, name: &'static str, change: &'static str, edit: impl FnOnce(&mut Setup<C>)) -> Self {
        self.and(name, ArmKind::Remedy, change, FAULT, edit)
    }

    /// The same arms in another address family: [`Topology::in_family`] converts
    /// their networks.
    #[must_use]
    pub fn in_family(mut self, family: Family) -> Self {
        self.list.iter_mut().for_each(|arm| arm.setup.change(|network| network.in_family(family)));
        self
    }

    /// Keeps the arm added last only if `condition` holds.
    #[must_use]
    pub fn only_where(mut self, condition: bool) -> Self {
        self.list.iter_mut().next_back().into_iter().for_each(|last| last.applies = condition);
        self
    }

    /// Gives the reason why the change of the arm added last has no effect, if `condition`
    /// holds: a clause about the values of the settings. An outcome without a reference
    /// quotes it if the remedy did not help, or the fault was not reproduced. It does not
    /// influence the verdict.
    #[must_use]
    pub fn no_effect_if(mut self, condition: bool, why: impl FnOnce() -> String) -> Self {
        if condition && let Some(last) = self.list.last_mut() {
            last.no_effect = Some(why());
        }
        self
    }

    /// Keeps the arms added from here on only if `condition` holds.
    #[must_use]
    pub fn rest_only_where(mut self, condition: bool) -> Self {
        self.applies = condition;
        self
    }

    fn and(
        mut self,
        name: &'static str,
        kind: ArmKind,
        change: &'static str,
        base: usize,
        edit: impl FnOnce(&mut Setup<C>),
    ) -> Self {
        assert!(self.list.iter().all(|arm| arm.name != name), "two arms are named {name:?}");
        let mut setup = self.list[base].setup.clone();
        edit(&mut setup);
        self.list.push(Draft { name, kind, change, applies: self.applies, no_effect: None, base, setup });
        self
    }
}

impl<C: Clone> Control<C> {
    /// The healthy network or its conduct, with the one edit that causes the fault.
    #[must_use]
    pub fn fault(self, change: &'static str, edit: impl FnOnce(&mut Setup<C>)) -> Arms<C> {
        Arms { list: vec![self.0], applies: true }.and("fault", ArmKind::Fault, change, CONTROL, edit)
    }
}

impl<C: fmt::Debug> Arms<C> {
    /// The difference between an arm and its base arm, as `show` prints it.
    ///
    /// # Panics
    /// When there is no arm of that name.
    #[must_use]
    pub fn edits(&self, name: &str) -> Vec<String> {
        let arm = self.list.iter().find(|arm| arm.name == name);
        let arm = arm.unwrap_or_else(|| panic!("no arm is named {name:?}"));
        differences(&self.list[arm.base].setup, &arm.setup)
    }
}

impl<C: fmt::Debug> Arms<C> {
    /// All arms, also those that do not apply, each with the conduct of its play.
    #[must_use]
    pub fn finish(self) -> Vec<(Arm, C)> {
        let edits: Vec<_> = self.list.iter().map(|arm| self.edits(arm.name)).collect();
        let marks: Vec<_> = self.list.iter().map(|arm| mark(arm.name)).collect();
        let arms = self.list.into_iter().zip(edits).zip(&marks);
        arms.map(|((draft, edits), mark)| {
            let Draft { name, kind, change, applies, no_effect, base: _, setup } = draft;
            let Setup { mut network, conduct } = setup;
            // Each arm gets a different number, which does not reveal the kind of the arm.
            network.number_own_devices(1 + marks.iter().filter(|other| *other < mark).count());
            (Arm { name, kind, change, applies, network, edits, no_effect }, conduct)
        })
        .collect()
    }
}

/// The FNV-1a hash of a name, 32 bits.
fn mark(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
