//! A node of a network that was built.

use std::cell::{Ref, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use super::firewall::Firewall;
use super::journal::Journal;
use super::pending::{Pending, PendingWait};
use crate::namespace::Namespace;
use crate::netlink::rtnl;
use crate::topology::rule::Rule;
use crate::topology::{Family, Kind};
use faultlab_base::error::Result;

/// A host, router or bridge: a namespace and its configuration.
#[derive(Debug)]
pub struct Host {
    pub(super) namespace: Namespace,
    pub(super) kind: Kind,
    pub(super) interfaces: Vec<Interface>,
    pub(super) firewall: Option<RefCell<Firewall>>,
    pub(super) pending: Rc<Pending>,
    pub(super) journal: Rc<Journal>,
}

/// An interface of a host, with the index that the lab set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The name; by default, the neighbour's name.
    pub name: String,
    /// The interface index, chosen by the lab and not by the kernel.
    pub index: u32,
    /// The Ethernet address, chosen by the lab.
    pub mac: [u8; 6],
    /// Its addresses, of either family, in the order of the topology.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its first address.
    ///
    /// # Panics
    /// If it has none, as a bridge.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.addresses().next().unwrap_or_else(|| panic!("{} has no address", self.name()))
    }

    /// Its first address of a family.
    #[must_use]
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        self.addresses().find(|address| Family::of(*address) == family)
    }

    /// Its addresses, interface by interface.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|interface| &interface.addresses).copied()
    }

    /// Its interfaces, without the loopback.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The interface with that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn interface(&self, name: &str) -> &Interface {
        self.interfaces
            .iter()
            .find(|i| i.name == name)
            .unwrap_or_else(|| panic!("{} has no interface {name:?}", self.name()))
    }

    /// Its firewall and NAT.
    ///
    /// # Panics
    /// When its topology gave it no rule.
    #[must_use]
    pub fn firewall(&self) -> Ref<'_, Firewall> {
        self.firewall_cell().borrow()
    }

    /// Replaces the rule that has the name of `rule`, as whoever manages a host does
    /// while traffic flows. The new rule is the last of its chain. Conntrack entries
    /// stay as they are.
    ///
    /// # Errors
    /// If there is no rule of that name, or the kernel refuses the new one.
    ///
    /// # Panics
    /// When its topology gave it no rule.
    pub fn replace_rule(&self, rule: Rule) -> Result<()> {
        let mut firewall = self.firewall_cell().borrow_mut();
        firewall.remove(rule.name())?;
        firewall.append(rule)
    }

    fn firewall_cell(&self) -> &RefCell<Firewall> {
        self.firewall.as_ref().unwrap_or_else(|| panic!("{} has no rules", self.name()))
    }

    /// How it handles packets.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its topology gave it rules.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        self.firewall.is_some()
    }

    /// Records that the lab waits for something at this host, until the result is
    /// dropped.
    #[must_use = "dropping it ends the record"]
    pub fn record_wait(&self, what: impl Into<String>) -> Rc<PendingWait> {
        self.pending.begin(self.name(), what.into())
    }

    /// The journal of the probes in its network.
    #[must_use]
    pub fn journal(&self) -> &Rc<Journal> {
        &self.journal
    }

    /// An rtnetlink connection in this host's namespace.
    ///
    /// # Errors
    /// If no netlink socket can be opened.
    pub fn rtnetlink(&self) -> Result<rtnetlink::Handle> {
        rtnl::connect(&self.namespace)
    }
}
