//! Hosts, routers, bridges, links and rules as plain values.
//!
//! A topology does nothing. It can be compared, drawn, and passed to
//! [`Network`](crate::network::Network), which builds it. An interface is named
//! after the node at the other end of its link, so that rules and drawings read
//! alike: `nat` reaches `server` through its interface `server`.

mod draw;
mod net;
mod pins;
pub mod rule;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use net::{Family, Net};
pub use pins::Sysctl;
pub(crate) use pins::no_ipv6;
use pins::{FORWARDING, IPV6_PINS, PINS, forwarding, pin, pins};
use rule::Rule;

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has addresses; sends everything else to the router it is linked to.
    Host,
    /// Forwards (net.ipv4.ip_forward=1, net.ipv6.conf.all.forwarding=1).
    Router,
    /// Joins its links on layer 2; has no address.
    Bridge,
}

/// A route of a node, beyond those of its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination; a prefix of 0 is the default route.
    pub to: Net,
    /// The next hop, of the same family.
    pub via: IpAddr,
}

/// A host, router or bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, also that of its neighbours' interfaces: at most 15 characters.
    pub name: String,
    /// How it handles packets.
    pub kind: Kind,
    /// Its firewall and NAT, in the order given.
    pub rules: Vec<Rule>,
    /// Its pinned sysctls, in the order given.
    pub sysctls: Vec<Sysctl>,
    /// Its routes, beyond those of its links.
    pub routes: Vec<Route>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Index of the node in [`Topology::nodes`].
    pub node: usize,
    /// The interface's name there.
    pub interface: String,
    /// Its addresses, of either family; none if the node is a bridge.
    pub nets: Vec<Net>,
}

/// A veth pair between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The two ends.
    pub ends: [End; 2],
    /// The largest IP packet that fits, in bytes.
    pub mtu: u32,
    /// Whether the frames pass through this process, under a policy.
    pub wired: bool,
}

/// The placeholder for the number of the arm in a device's name.
const NUMBER: char = '*';

/// A network as a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Hosts, routers and bridges.
    pub nodes: Vec<Node>,
    /// The links between them.
    pub links: Vec<Link>,
    /// Kernel-wide settings, in force as long as the network exists.
    pub kernel: Vec<Sysctl>,
}

impl Topology {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn node(mut self, name: &str, kind: Kind) -> Self {
        assert!(name.len() < 16, "{name:?} is longer than an interface's name may be");
        assert!(self.nodes.iter().all(|n| n.name != name), "two nodes are named {name:?}");
        let mut sysctls = match kind {
            Kind::Bridge => no_ipv6(),
            Kind::Host | Kind::Router => pins(&PINS),
        };
        if kind == Kind::Router {
            sysctls.push(forwarding(Family::V4));
        }
        self.nodes.push(Node { name: name.into(), kind, rules: vec![], sysctls, routes: vec![] });
        self
    }

    /// Adds a host.
    #[must_use]
    pub fn host(self, name: &str) -> Self {
        self.node(name, Kind::Host)
    }

    /// Adds hosts.
    #[must_use]
    pub fn hosts<const N: usize>(self, names: [&str; N]) -> Self {
        names.into_iter().fold(self, Self::host)
    }

    /// Adds a router.
    #[must_use]
    pub fn router(self, name: &str) -> Self {
        self.node(name, Kind::Router)
    }

    /// Adds a bridge.
    #[must_use]
    pub fn bridge(self, name: &str) -> Self {
        self.node(name, Kind::Bridge)
    }

    /// Links two nodes, each given as `name` or `name address/prefix`. An end may
    /// have several addresses, of either family, with spaces between them.
    ///
    /// # Panics
    /// If a node is unknown or an address is invalid.
    #[must_use]
    pub fn link(mut self, one: &str, other: &str) -> Self {
        let split = |end: &str| {
            let mut words = end.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            (name, words.map(Net::parse).collect::<Vec<_>>())
        };
        let ((one, one_nets), (other, other_nets)) = (split(one), split(other));
        let ends = [
            End { node: self.index(&one), interface: other.clone(), nets: one_nets },
            End { node: self.index(&other), interface: one, nets: other_nets },
        ];
        for end in &ends {
            if end.nets.iter().any(|net| net.family() == Family::V6) {
                self.enable_ipv6(end.node);
            }
        }
        self.links.push(Link { ends, mtu: 1500, wired: false });
        self
    }

    /// Pins what a node with an IPv6 address needs. Settings that the topology
    /// itself has pinned are kept.
    fn enable_ipv6(&mut self, node: usize) {
        let Node { kind, sysctls, .. } = &mut self.nodes[node];
        let router = (*kind == Kind::Router).then(|| forwarding(Family::V6));
        for pin in pins(&IPV6_PINS).into_iter().chain(router) {
            match sysctls.iter_mut().find(|known| known.key == pin.key) {
                Some(known) if known.optional => *known = pin,
                Some(_) => {}
                None => sysctls.push(pin),
            }
        }
    }

    /// The same network in an address family; [`Family::address`] maps an IPv4
    /// address to IPv6. Rules for ICMP become rules for ICMPv6.
    #[must_use]
    pub fn in_family(mut self, family: Family) -> Self {
        for node in &mut self.nodes {
            for route in &mut node.routes {
                *route = Route { to: family.net(route.to), via: family.address(route.via) };
            }
            node.rules =
                std::mem::take(&mut node.rules).into_iter().map(|rule| rule.of_family(family)).collect();
        }
        for end in self.links.iter_mut().flat_map(|link| &mut link.ends) {
            end.nets = end.nets.iter().map(|net| family.net(*net)).collect();
        }
        for node in 0..self.nodes.len() {
            if self.families_of(node).contains(&Family::V6) {
                self.enable_ipv6(node);
            }
        }
        self
    }

    /// The families of a node's addresses.
    pub(crate) fn families_of(&self, node: usize) -> Vec<Family> {
        let own = || self.links.iter().flat_map(|link| &link.ends).filter(|end| end.node == node);
        let has = |family: &Family| own().flat_map(|end| &end.nets).any(|net| net.family() == *family);
        Family::BOTH.into_iter().filter(has).collect()
    }

    /// Like [`link`](Self::link), with the frames passing through this process.
    #[must_use]
    pub fn wire(self, one: &str, other: &str) -> Self {
        let mut made = self.link(one, other);
        made.last_link().wired = true;
        made
    }

    /// Sets the MTU, in bytes, of the link added last.
    #[must_use]
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.last_link().mtu = bytes;
        self
    }

    /// Names the two interfaces of the link added last.
    #[must_use]
    pub fn interfaces(mut self, one: &str, other: &str) -> Self {
        let link = self.last_link();
        link.ends[0].interface = one.into();
        link.ends[1].interface = other.into();
        self
    }

    /// Gives the first interface of the link added last a name that is unique
    /// among the arms of the scenario: the kernel log has no namespaces, only
    /// names. `prefix` has at most 12 characters; `Stage::own_device` returns the
    /// name.
    #[must_use]
    pub fn own_device(mut self, prefix: &str) -> Self {
        self.last_link().ends[0].interface = format!("{prefix}-{NUMBER}");
        self
    }

    /// Replaces the placeholder in the names of [`own_device`](Self::own_device) by
    /// the number of the arm.
    pub fn number_own_devices(&mut self, number: usize) {
        for end in self.links.iter_mut().flat_map(|link| &mut link.ends) {
            end.interface = end.interface.replace(NUMBER, &number.to_string());
        }
    }

    /// Adds a firewall or NAT rule to a node.
    #[must_use]
    pub fn rule(mut self, node: &str, rule: Rule) -> Self {
        let index = self.index(node);
        self.nodes[index].rules.push(rule);
        self
    }

    /// Pins a sysctl of a node; a kernel without it cannot run the scenario.
    #[must_use]
    pub fn sysctl(mut self, node: &str, key: &str, value: impl fmt::Display) -> Self {
        let index = self.index(node);
        pin(&mut self.nodes[index].sysctls, key, value).optional = false;
        self
    }

    /// Pins a sysctl if the kernel has it.
    #[must_use]
    pub fn sysctl_where_known(mut self, node: &str, key: &str, value: impl fmt::Display) -> Self {
        let index = self.index(node);
        pin(&mut self.nodes[index].sysctls, key, value).optional = true;
        self
    }

    /// Sets a kernel-wide sysctl, such as net.netfilter.nf_conntrack_max, as long
    /// as the network exists. Only for a kernel that nothing else runs on
    /// (`Need::ExclusiveKernel`), and for scenarios whose arms run one after another.
    #[must_use]
    pub fn kernel_sysctl(mut self, key: &str, value: impl fmt::Display) -> Self {
        pin(&mut self.kernel, key, value).optional = false;
        self
    }

    /// Adds a route to a node: `to` is `default`, of the family of `via`, or an
    /// address with a prefix.
    ///
    /// # Panics
    /// If the node is unknown or an address is invalid.
    #[must_use]
    pub fn route(mut self, node: &str, to: &str, via: &str) -> Self {
        let via: IpAddr = via.parse().unwrap_or_else(|_| panic!("{via:?} is not an address"));
        let to = if to == "default" { default_route(Family::of(via)) } else { Net::parse(to) };
        assert!(to.family() == Family::of(via), "{to} via {via}: these are two address families");
        let index = self.index(node);
        self.nodes[index].routes.push(Route { to, via });
        self
    }

    /// The index of a node.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn index(&self, name: &str) -> usize {
        self.nodes.iter().position(|n| n.name == name).unwrap_or_else(|| panic!("no node is named {name:?}"))
    }

    /// The two ends of the wired link between two nodes, in their order.
    #[must_use]
    pub fn wired(&self, one: &str, other: &str) -> Option<[&End; 2]> {
        let nodes = [self.index(one), self.index(other)];
        self.links.iter().filter(|link| link.wired).find_map(|link| {
            let [here, there] = &link.ends;
            let ends = if here.node == nodes[0] { [here, there] } else { [there, here] };
            (ends.map(|end| end.node) == nodes).then_some(ends)
        })
    }

    fn last_link(&mut self) -> &mut Link {
        self.links.last_mut().expect("a link was added before")
    }

    /// The routes of a node. A host with one link and no default route also gets
    /// one in each family of its addresses, to the router at the other end or
    /// behind the bridge there.
    #[must_use]
    pub fn routes_of(&self, node: usize) -> Vec<Route> {
        let mut routes = self.nodes[node].routes.clone();
        if self.nodes[node].kind != Kind::Host {
            return routes;
        }
        let Some(gateway) = self.only_router_of(node) else { return routes };
        for family in self.families_of(node) {
            let of_family = |net: &&Net| net.family() == family;
            let known = routes.iter().any(|r| r.to.is_everything() && r.to.family() == family);
            if let (false, Some(net)) = (known, gateway.nets.iter().find(of_family)) {
                routes.push(Route { to: default_route(family), via: net.addr() });
            }
        }
        routes
    }

    /// The end of the only router that a host reaches over its only link.
    fn only_router_of(&self, host: usize) -> Option<&End> {
        let mut ends = self.far_ends(host);
        let (Some(end), None) = (ends.next(), ends.next()) else { return None };
        match self.nodes[end.node].kind {
            Kind::Router => Some(end),
            Kind::Host => None,
            Kind::Bridge => self.far_ends(end.node).find(|end| self.nodes[end.node].kind == Kind::Router),
        }
    }

    /// The other ends of a node's links.
    pub fn far_ends(&self, node: usize) -> impl Iterator<Item = &End> {
        self.links.iter().filter_map(move |link| match (&link.ends[0], &link.ends[1]) {
            (near, far) if near.node == node => Some(far),
            (far, near) if near.node == node => Some(far),
            _ => None,
        })
    }
}

fn default_route(family: Family) -> Net {
    Net::new(family.unspecified(), 0)
}
