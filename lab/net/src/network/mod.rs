//! A topology built for real: namespaces, links, routes, rules, pinned sysctls.
//!
//! File descriptors of this process keep everything alive. Nothing has a name
//! outside the process, and nothing outlives it.

mod build;
pub mod firewall;
mod host;
pub mod journal;
pub mod pending;
pub mod qdisc;
pub mod sysctl;
mod wired;

pub use crate::namespace::{self, Namespace};
pub use crate::netlink::{self, nfnetlink, rtnl};
pub use crate::packet::{offload, ring};
pub use host::{Host, Interface};

use std::cell::RefCell;
use std::rc::Rc;

use self::build::Built;
use self::journal::Journal;
use self::pending::Pending;
use self::sysctl::KernelSysctl;
use self::wired::Wired;
use crate::topology::Topology;
use crate::wire::segment::Macs;
use crate::wire::{Policy, Wire};
use faultlab_base::error::Result;

/// A network that was built. Dropping it lets the kernel free it, which happens
/// 20 to 100 ms later.
#[derive(Debug)]
#[must_use = "a network that is dropped is gone"]
pub struct Network {
    topology: Topology,
    hosts: Vec<Host>,
    /// The namespace of the inner ends of wired links; `None` if no link is wired.
    wire_namespace: Option<Namespace>,
    wired: RefCell<Vec<Wired>>,
    /// The kernel-wide settings, in force until this network is dropped.
    #[allow(dead_code, reason = "held to be dropped")]
    kernel: Vec<KernelSysctl>,
}

impl Network {
    /// Builds a topology and waits until every link has its carrier.
    ///
    /// Runs inside a [`LocalSet`](tokio::task::LocalSet) on one thread.
    ///
    /// # Errors
    /// What the kernel refused, with the node and the request; what the kernel
    /// lacks.
    pub async fn build(topology: Topology) -> Result<Self> {
        let Built { hosts, wire_namespace, wired, kernel } = build::build(&topology).await?;
        Ok(Self { topology, hosts, wire_namespace, wired: RefCell::new(wired), kernel })
    }

    /// The node with that name.
    ///
    /// # Panics
    /// If the topology has no such node.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        &self.hosts[self.topology.index(name)]
    }

    /// All nodes, in topology order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Starts to carry the frames of the wired link between two nodes, under a
    /// policy. When the returned wire is dropped, the link is free for another.
    /// [`Direction::There`](crate::wire::Direction::There) is from `one` to
    /// `other`.
    ///
    /// # Errors
    /// If no packet socket can be opened.
    ///
    /// # Panics
    /// If there is no wired link between the two, or another wire has it.
    pub fn wire(&self, one: &str, other: &str, policy: Box<dyn Policy>) -> Result<Rc<Wire>> {
        let nodes = [self.topology.index(one), self.topology.index(other)];
        let mut wired = self.wired.borrow_mut();
        let waiting = wired.iter_mut().find(|w| {
            let ours = w.nodes == nodes || w.nodes == [nodes[1], nodes[0]];
            ours && w.wire.strong_count() == 0
        });
        let link = waiting.unwrap_or_else(|| panic!("no wired link waits between {one} and {other}"));
        if link.rings.is_none() {
            wired::open(self.wire_namespace.as_ref(), std::slice::from_mut(link), &self.hosts)?;
        }
        let mut rings = link.rings.take().expect("it is open");
        if link.nodes != nodes {
            rings.reverse();
        }
        let wire = Rc::new(Wire::between(rings, policy)?);
        link.wire = Rc::downgrade(&wire);
        Ok(wire)
    }

    /// The Ethernet addresses of a frame from one node to a neighbour.
    ///
    /// # Panics
    /// If the two are not linked.
    #[must_use]
    pub fn macs(&self, from: &str, to: &str) -> Macs {
        let nodes = [self.topology.index(from), self.topology.index(to)];
        let link = self
            .topology
            .links
            .iter()
            .find(|l| {
                let ends = [l.ends[0].node, l.ends[1].node];
                ends == nodes || ends == [nodes[1], nodes[0]]
            })
            .unwrap_or_else(|| panic!("{from} and {to} are not linked"));
        let mac = |node: usize| {
            let end = link.ends.iter().find(|e| e.node == node).expect("the link has this end");
            self.hosts[node].interface(&end.interface).mac
        };
        Macs { src: mac(nodes[0]), dst: mac(nodes[1]) }
    }

    /// What the lab waits for at its hosts; `None` if there are no hosts.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.hosts.first().map(|host| &*host.pending)
    }

    /// The journal of its probes; `None` if there are no hosts.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.hosts.first().map(|host| &**host.journal())
    }

    /// The topology that this network was built from.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }
}
