//! Hosts, routers, bridges, links and rules as plain values.
//!
//! A topology does nothing. It can be compared, drawn, and handed to
//! [`Network`](crate::network::Network), which makes it real. An interface is
//! named after the node at the other end of its link, so that rules and
//! drawings read alike: `nat` reaches `server` through its interface `server`.

mod draw;
pub mod rule;

use std::fmt;
use std::net::Ipv4Addr;

use rule::Rule;

/// What kind of node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has addresses; sends what is not its own to the router it is linked to.
    Host,
    /// Forwards IPv4 (net.ipv4.ip_forward=1).
    Router,
    /// Joins its links on layer 2; has no address.
    Bridge,
}

/// An address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub prefix: u8,
}

impl Net {
    /// Reads `10.0.0.1/24`.
    ///
    /// # Panics
    /// When the text is not an IPv4 address with a prefix length: topologies
    /// are written in source, so this is a mistake in the source.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some(Self { address: address.parse().ok()?, prefix: prefix.parse().ok().filter(|p| *p <= 32)? })
        });
        parts.unwrap_or_else(|| panic!("{text:?} is not an IPv4 address with a prefix length"))
    }

    /// The addresses after this one, as many as the prefix leaves room for.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let room = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (1..=room).map_while(move |n| self.address.to_bits().checked_add(n).map(Ipv4Addr::from_bits))
    }
}

/// A route of a node beyond its own links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination; a prefix of 0 is the default route.
    pub to: Net,
    /// The next hop.
    pub via: Ipv4Addr,
}

/// A kernel setting pinned in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The key, for example `net.ipv4.tcp_timestamps`.
    pub key: String,
    /// The value as sysctl prints it.
    pub value: String,
    /// Whether a kernel without the key is good enough.
    pub optional: bool,
}

/// A host, router or bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, also that of its neighbours' interfaces: at most 15 characters.
    pub name: String,
    /// What it does with a packet.
    pub kind: Kind,
    /// Its firewall and NAT, in the order given.
    pub rules: Vec<Rule>,
    /// What is pinned, in the order given.
    pub sysctls: Vec<Sysctl>,
    /// Routes beyond its links.
    pub routes: Vec<Route>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Index of the node in [`Topology::nodes`].
    pub node: usize,
    /// The interface's name there.
    pub interface: String,
    /// Its address, where the node is no bridge.
    pub net: Option<Net>,
}

/// A veth pair between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The two ends.
    pub ends: [End; 2],
    /// The largest IP packet that passes, in bytes.
    pub mtu: u32,
    /// Whether the frames pass through this process, under a policy.
    pub wired: bool,
}

/// The values that every host is given, so that a distribution's defaults
/// cannot change an outcome. A kernel that lacks one behaves as if it were so.
const PINS: [(&str, &str); 14] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.tcp_congestion_control", "reno"),
    ("net.ipv4.tcp_ecn", "0"),
    ("net.ipv4.tcp_sack", "1"),
    // No more under way than a wire's ring holds, however late this process is.
    ("net.ipv4.tcp_rmem", "4096 131072 2097152"),
    ("net.ipv4.tcp_timestamps", "1"),
    ("net.ipv4.tcp_syn_retries", "6"),
    ("net.ipv4.tcp_retries2", "15"),
    ("net.ipv4.tcp_tw_reuse", "0"),
    // Up to 4.11; one for the whole kernel up to 4.10.
    ("net.ipv4.tcp_tw_recycle", "0"),
    ("net.ipv4.tcp_fin_timeout", "60"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

/// What keeps a namespace that sends nothing of its own from greeting its
/// neighbours.
pub(crate) fn no_ipv6() -> Vec<Sysctl> {
    pins(&PINS[..2])
}

fn pins(pins: &[(&str, &str)]) -> Vec<Sysctl> {
    let pin = |&(key, value): &(&str, &str)| Sysctl { key: key.into(), value: value.into(), optional: true };
    pins.iter().map(pin).collect()
}

/// Gives a sysctl its value, in its old place where it had one.
fn pin<'a>(sysctls: &'a mut Vec<Sysctl>, key: &str, value: impl fmt::Display) -> &'a mut Sysctl {
    let at = sysctls.iter().position(|s| s.key == key).unwrap_or_else(|| {
        sysctls.push(Sysctl { key: key.into(), value: String::new(), optional: false });
        sysctls.len() - 1
    });
    sysctls[at].value = value.to_string();
    &mut sysctls[at]
}

/// Stands in a device's name for the number of its arm.
const NUMBER: char = '*';

/// A network as a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Hosts, routers and bridges.
    pub nodes: Vec<Node>,
    /// The links between them.
    pub links: Vec<Link>,
    /// What is set for the whole kernel while the network is there.
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
            sysctls.push(Sysctl { key: "net.ipv4.ip_forward".into(), value: "1".into(), optional: false });
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

    /// Links two nodes, each given as `name` or `name address/prefix`.
    ///
    /// # Panics
    /// When a node is unknown or an address cannot be read.
    #[must_use]
    pub fn link(mut self, one: &str, other: &str) -> Self {
        let split = |end: &str| match end.split_once(' ') {
            Some((name, net)) => (name.to_owned(), Some(Net::parse(net))),
            None => (end.to_owned(), None),
        };
        let ((one, one_net), (other, other_net)) = (split(one), split(other));
        let ends = [
            End { node: self.index(&one), interface: other.clone(), net: one_net },
            End { node: self.index(&other), interface: one, net: other_net },
        ];
        self.links.push(Link { ends, mtu: 1500, wired: false });
        self
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

    /// Names the first interface of the link added last so that no other arm of
    /// the scenario has its name: the kernel's log knows no namespaces, only
    /// names. `prefix` has 12 characters at most;
    /// [`Stage::own_device`](faultlab_engine::stage::Stage::own_device) tells the name.
    #[must_use]
    pub fn own_device(mut self, prefix: &str) -> Self {
        self.last_link().ends[0].interface = format!("{prefix}-{NUMBER}");
        self
    }

    /// Fills the number of an arm in.
    pub(crate) fn number_own_devices(&mut self, number: usize) {
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

    /// Pins a sysctl only where the kernel has it.
    #[must_use]
    pub fn sysctl_where_known(mut self, node: &str, key: &str, value: impl fmt::Display) -> Self {
        let index = self.index(node);
        pin(&mut self.nodes[index].sysctls, key, value).optional = true;
        self
    }

    /// Sets a sysctl of the whole kernel, such as net.netfilter.nf_conntrack_max,
    /// while the network is there. For a kernel that nothing else runs on
    /// ([`Need::OwnKernel`](faultlab_model::scenario::Need::OwnKernel)), and for
    /// scenarios whose arms run one after another.
    #[must_use]
    pub fn kernel_sysctl(mut self, key: &str, value: impl fmt::Display) -> Self {
        pin(&mut self.kernel, key, value).optional = false;
        self
    }

    /// Adds a route to a node: `to` is `default` or an address with a prefix.
    ///
    /// # Panics
    /// When the node is unknown or an address cannot be read.
    #[must_use]
    pub fn route(mut self, node: &str, to: &str, via: &str) -> Self {
        let to = Net::parse(if to == "default" { "0.0.0.0/0" } else { to });
        let via = via.parse().unwrap_or_else(|_| panic!("{via:?} is not an IPv4 address"));
        let index = self.index(node);
        self.nodes[index].routes.push(Route { to, via });
        self
    }

    /// The position of a node.
    ///
    /// # Panics
    /// When there is none of that name.
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

    /// The routes of a node: its own, and for a host with one link and no
    /// default route, the router at the other end or behind the bridge there.
    #[must_use]
    pub fn routes_of(&self, node: usize) -> Vec<Route> {
        let mut routes = self.nodes[node].routes.clone();
        if self.nodes[node].kind == Kind::Host
            && !routes.iter().any(|r| r.to.prefix == 0)
            && let Some(via) = self.only_router_of(node)
        {
            routes.push(Route { to: Net { address: Ipv4Addr::UNSPECIFIED, prefix: 0 }, via });
        }
        routes
    }

    fn only_router_of(&self, host: usize) -> Option<Ipv4Addr> {
        let mut ends = self.far_ends(host);
        let (Some(end), None) = (ends.next(), ends.next()) else { return None };
        match self.nodes[end.node].kind {
            Kind::Router => end.net.map(|n| n.address),
            Kind::Host => None,
            Kind::Bridge => self
                .far_ends(end.node)
                .find(|e| self.nodes[e.node].kind == Kind::Router)
                .and_then(|e| e.net)
                .map(|n| n.address),
        }
    }

    /// The other ends of a node's links.
    pub(crate) fn far_ends(&self, node: usize) -> impl Iterator<Item = &End> {
        self.links.iter().filter_map(move |link| match (&link.ends[0], &link.ends[1]) {
            (near, far) if near.node == node => Some(far),
            (far, near) if near.node == node => Some(far),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind_a_bridge() -> Topology {
        Topology::new()
            .host("a")
            .bridge("lan")
            .router("gw")
            .host("server")
            .link("a 10.0.0.2/24", "lan")
            .link("gw 10.0.0.1/24", "lan")
            .link("gw 192.0.2.1/24", "server 192.0.2.2/24")
    }

    #[test]
    fn a_host_finds_its_router_behind_a_bridge() {
        let t = behind_a_bridge();
        let via = |node: &str| t.routes_of(t.index(node)).first().map(|r| r.via.to_string());
        assert_eq!(via("a").as_deref(), Some("10.0.0.1"));
        assert_eq!(via("server").as_deref(), Some("192.0.2.1"));
        assert_eq!(via("gw"), None);
    }

    #[test]
    fn a_later_pin_replaces_an_earlier_one() {
        let t = behind_a_bridge().sysctl("a", "net.ipv4.tcp_timestamps", 0);
        let pins: Vec<_> = t.nodes[0].sysctls.iter().filter(|s| s.key == "net.ipv4.tcp_timestamps").collect();
        assert_eq!(pins.len(), 1);
        assert_eq!(pins[0].value, "0");
    }

    #[test]
    fn a_wired_link_is_found_from_either_end() {
        let t = behind_a_bridge().wire("a 10.0.1.1/24", "server 10.0.1.2/24").interfaces("near", "far");
        let ends = |one, other| t.wired(one, other).map(|ends| ends.map(|end| end.interface.as_str()));
        assert_eq!(ends("a", "server"), Some(["near", "far"]));
        assert_eq!(ends("server", "a"), Some(["far", "near"]));
        assert_eq!(ends("gw", "server"), None);
    }
}
