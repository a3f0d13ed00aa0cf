//! The value that an edit changes.

use std::fmt;
use std::ops::{Deref, DerefMut};

use faultlab_net::topology::Topology;
use faultlab_net::topology::rule::Rule;

/// The network of an arm and the conduct of its play: what an edit can change.
///
/// It dereferences to the conduct: `arm.requests = 100` means `arm.conduct.requests =
/// 100`.
#[derive(Debug, Clone)]
pub struct Setup<C> {
    /// The network.
    pub network: Topology,
    /// The parameters of the play.
    pub conduct: C,
}

impl<C> Deref for Setup<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.conduct
    }
}

impl<C> DerefMut for Setup<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.conduct
    }
}

impl<C> Setup<C> {
    /// Sets a sysctl of a node.
    pub fn sysctl(&mut self, node: &str, key: &str, value: impl fmt::Display) {
        self.change(|network| network.sysctl(node, key, value));
    }

    /// Sets a sysctl that is global to the kernel.
    pub fn kernel_sysctl(&mut self, key: &str, value: impl fmt::Display) {
        self.change(|network| network.kernel_sysctl(key, value));
    }

    /// Adds a rule after the other rules of a node, or replaces the rule of the same
    /// name.
    pub fn rule(&mut self, node: &str, rule: Rule) {
        let node = self.network.index(node);
        let rules = &mut self.network.nodes[node].rules;
        match rules.iter_mut().find(|known| known.name() == rule.name()) {
            Some(known) => *known = rule,
            None => rules.push(rule),
        }
    }

    /// Adds a rule before the other rules of a node.
    pub fn first_rule(&mut self, node: &str, rule: Rule) {
        let node = self.network.index(node);
        self.network.nodes[node].rules.insert(0, rule);
    }

    /// Changes the network with the builder methods of [`Topology`].
    pub fn change(&mut self, change: impl FnOnce(Topology) -> Topology) {
        self.network = change(std::mem::take(&mut self.network));
    }
}
