//! How a network is built: all namespaces, then all links, then addresses and
//! routes, then carriers, then rules.
//!
//! Each step visits the namespaces one after the other and leaves no connection
//! open. The kernel handles one request at a time anyway (the rtnl mutex), and a
//! connection to each of 1,000 hosts would waste memory.

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use netlink_packet_route::link::LinkMessage;
use tokio::time::Instant;

use super::firewall::Firewall;
use super::host::{Host, Interface};
use super::journal::Journal;
use super::pending::Pending;
use super::sysctl::{self, KernelSysctl};
use super::wired::{self, Wired};
use crate::namespace::Namespace;
use crate::netlink::rtnl::{self, VethEnd, answered};
use crate::packet::offload;
use crate::topology::{Family, Kind, Link, Net, Route, Topology, no_ipv6};
use faultlab_base::error::{Error, Result};

/// The index of a bridge; links are numbered from the next one. Indices that the
/// lab sets are the same on every run and every kernel.
const BRIDGE_INDEX: u32 = 2;

/// How long a link may take to get its carrier, and an address to become usable.
const READY: Duration = Duration::from_secs(5);

/// The parts of a network.
pub(super) struct Built {
    pub(super) hosts: Vec<Host>,
    pub(super) wire_namespace: Option<Namespace>,
    pub(super) wired: Vec<Wired>,
    pub(super) kernel: Vec<KernelSysctl>,
}

pub(super) async fn build(topology: &Topology) -> Result<Built> {
    let kernel =
        topology.kernel.iter().map(|s| sysctl::set_kernel_wide(&s.key, &s.value)).collect::<Result<_>>()?;
    let mut hosts = namespaces(topology)?;
    let wired = topology.links.iter().any(|l| l.wired);
    let wire_namespace = wired.then(|| Namespace::new("the wires' namespace")).transpose()?;
    if let Some(wire_namespace) = &wire_namespace {
        sysctl::pin(wire_namespace, &no_ipv6())?;
    }
    let (plans, mut wired) = plan(topology, &mut hosts, wire_namespace.as_ref());
    let places = || hosts.iter().map(Host::namespace).chain(&wire_namespace).zip(&plans);
    for (place, plan) in places() {
        make(place, plan).await?;
    }
    for (place, plan) in places() {
        configure(place, plan).await?;
    }
    for wire in topology.links.iter().filter(|l| l.wired) {
        for end in &wire.ends {
            // A wire carries what a cable would: whole frames with complete
            // checksums.
            offload::switch_off(&hosts[end.node].namespace, &end.interface)?;
        }
    }
    for host in &hosts {
        carriers(host).await?;
        addresses(host).await?;
    }
    wired::open(wire_namespace.as_ref(), &mut wired, &hosts)?;
    for (host, node) in hosts.iter_mut().zip(&topology.nodes) {
        if !node.rules.is_empty() {
            let families = topology.families_of(topology.index(&node.name));
            let firewall = Firewall::install_for(&host.namespace, &families, &node.rules)?;
            host.firewall = Some(RefCell::new(firewall));
        }
    }
    Ok(Built { hosts, wire_namespace, wired, kernel })
}

fn namespaces(topology: &Topology) -> Result<Vec<Host>> {
    let (pending, journal) = (Rc::new(Pending::default()), Rc::new(Journal::default()));
    let make = |(number, node): (usize, &crate::topology::Node)| {
        let namespace = Namespace::new(&node.name)?;
        if topology.families_of(number).contains(&Family::V6)
            && !sysctl::exists(&namespace, "net.ipv6.conf.all.disable_ipv6")?
        {
            let way = format!(
                "{} has an IPv6 address; use a kernel with IPv6, booted without ipv6.disable=1",
                node.name
            );
            return Err(Error::missing("IPv6 (CONFIG_IPV6)", way));
        }
        // Disable IPv6 before there is any link, or duplicate address detection
        // starts.
        sysctl::pin(&namespace, &node.sysctls)?;
        Ok(Host {
            namespace,
            kind: node.kind,
            interfaces: vec![],
            firewall: None,
            pending: Rc::clone(&pending),
            journal: Rc::clone(&journal),
        })
    };
    topology.nodes.iter().enumerate().map(make).collect()
}

/// The rtnetlink requests for one namespace.
#[derive(Default)]
struct Plan<'a> {
    /// New links, up: a bridge, and veth pairs with their far ends elsewhere.
    make: Vec<LinkMessage>,
    /// Links to bring up: the loopback interface, and far ends.
    raise: Vec<LinkMessage>,
    /// The interfaces that have an IPv6 address.
    ipv6: Vec<&'a str>,
    /// Addresses, by the index and the name of their interface.
    addresses: Vec<(u32, &'a str, Net)>,
    /// The far ends of links that lead to a single host.
    neighbours: Vec<Neighbour>,
    routes: Vec<Route>,
}

/// Permanent neighbour entries, in place of ARP and neighbour discovery. All
/// namespaces share one neighbour table, and when it is full
/// (net.ipv4.neigh.default.gc_thresh3, 1024), a healthy host is unreachable.
/// Permanent entries do not count (net/core/neighbour.c: neigh_alloc,
/// exempt_from_gc, since 5.0).
struct Neighbour {
    index: u32,
    address: IpAddr,
    mac: [u8; 6],
}

/// Plans every node and, after them, the namespace of the wires. Gives the hosts
/// their interfaces.
fn plan<'a>(
    topology: &'a Topology,
    hosts: &mut [Host],
    wire_namespace: Option<&Namespace>,
) -> (Vec<Plan<'a>>, Vec<Wired>) {
    let mut plans: Vec<Plan<'_>> = vec![];
    for (n, host) in hosts.iter().enumerate() {
        let bridge = (host.kind == Kind::Bridge).then(|| rtnl::bridge(host.name(), BRIDGE_INDEX));
        plans.push(Plan {
            make: bridge.into_iter().collect(),
            raise: vec![rtnl::up(1, None)],
            routes: topology.routes_of(n),
            ..Plan::default()
        });
    }
    plans.extend(wire_namespace.map(|_| Plan::default()));
    let mut wired = vec![];
    for (number, link) in topology.links.iter().enumerate() {
        let nodes = [link.ends[0].node, link.ends[1].node];
        let [near, far] = [0, 1].map(|end| add_interface(&mut hosts[nodes[end]], number, link, end));
        for (end, (interface, _)) in link.ends.iter().zip([&near, &far]) {
            let plan = &mut plans[end.node];
            plan.addresses.extend(end.nets.iter().map(|net| (interface.index, &*end.interface, *net)));
            let has_ipv6 = end.nets.iter().any(|net| net.family() == Family::V6);
            plan.ipv6.extend(has_ipv6.then_some(&*end.interface));
        }
        for (node, (here, _), (there, _)) in [(nodes[0], &near, &far), (nodes[1], &far, &near)] {
            let alike =
                |address: &IpAddr| here.addresses.iter().any(|own| Family::of(*own) == Family::of(*address));
            let neighbour = |&address: &IpAddr| Neighbour { index: here.index, address, mac: there.mac };
            plans[node].neighbours.extend(there.addresses.iter().filter(|a| alike(a)).map(neighbour));
        }
        let outer = [&near, &far].map(|(interface, bridge)| VethEnd {
            name: &interface.name,
            index: interface.index,
            mac: interface.mac,
            bridge: *bridge,
        });
        if let (true, Some(wire_namespace)) = (link.wired, wire_namespace) {
            let interfaces = [format!("w{number}-0"), format!("w{number}-1")];
            for side in 0..2 {
                let inner = VethEnd {
                    name: &interfaces[side],
                    index: nth(2 * number + side),
                    mac: mac(0xffff - side, number),
                    bridge: None,
                };
                plans[nodes[side]].make.push(rtnl::veth(
                    &outer[side],
                    &inner,
                    link.mtu,
                    wire_namespace.as_fd(),
                ));
                plans[hosts.len()].raise.push(rtnl::up(inner.index, None));
            }
            wired.push(Wired { nodes, interfaces, rings: None, wire: Weak::new() });
        } else {
            let there = hosts[nodes[1]].namespace.as_fd();
            plans[nodes[0]].make.push(rtnl::veth(&outer[0], &outer[1], link.mtu, there));
            plans[nodes[1]].raise.push(rtnl::up(outer[1].index, outer[1].bridge));
        }
    }
    (plans, wired)
}

/// 02:00:00 (locally administered), then the node and the link.
fn mac(node: usize, link: usize) -> [u8; 6] {
    let (node, link) = (node.to_be_bytes(), link.to_be_bytes());
    [2, node[6], node[7], link[5], link[6], link[7]]
}

/// The index of the n-th link of a namespace.
fn nth(n: usize) -> u32 {
    BRIDGE_INDEX + 1 + u32::try_from(n).expect("a namespace has fewer than 2^32 links")
}

/// Adds an end of a link to its host. Returns it, with the bridge it will join.
fn add_interface(host: &mut Host, number: usize, link: &Link, end: usize) -> (Interface, Option<u32>) {
    let end = &link.ends[end];
    let interface = Interface {
        name: end.interface.clone(),
        index: nth(host.interfaces.len()),
        mac: mac(end.node, number),
        addresses: end.nets.iter().map(|net| net.addr()).collect(),
    };
    host.interfaces.push(interface.clone());
    (interface, (host.kind == Kind::Bridge).then_some(BRIDGE_INDEX))
}

async fn make(place: &Namespace, plan: &Plan<'_>) -> Result<()> {
    if plan.make.is_empty() {
        return Ok(());
    }
    let links = rtnl::connect(place)?.link();
    for message in &plan.make {
        let request = links.add(message.clone()).execute().await;
        answered(place.name(), || format!("make link {}", message.header.index), request)?;
    }
    Ok(())
}

async fn configure(place: &Namespace, plan: &Plan<'_>) -> Result<()> {
    let handle = rtnl::connect(place)?;
    for message in &plan.raise {
        let request = handle.link().set(message.clone()).execute().await;
        answered(place.name(), || format!("bring link {} up", message.header.index), request)?;
    }
    for interface in &plan.ipv6 {
        // Before its addresses: an interface without IPv6 accepts none.
        sysctl::set(place, &sysctl::of_interface("net.ipv6.conf", interface, "disable_ipv6"), "0")?;
    }
    for (index, interface, net) in &plan.addresses {
        let mut request = handle.address().add(*index, net.addr(), net.prefix_len());
        if net.family() == Family::V6 {
            rtnl::without_dad(request.message_mut());
        }
        let answer = request.execute().await;
        answered(place.name(), || format!("add address {} to {interface}", net.addr()), answer)?;
    }
    for neighbour in &plan.neighbours {
        let request = handle.neighbours().add(neighbour.index, neighbour.address);
        let request = request.link_layer_address(&neighbour.mac).execute().await;
        answered(place.name(), || format!("add neighbour {}", neighbour.address), request)?;
    }
    for route in &plan.routes {
        let request = handle.route().add(rtnl::route(route.to, Some(route.via))).execute().await;
        let what = || format!("add route to {} via {}", route.to, route.via);
        answered(place.name(), what, request)?;
    }
    Ok(())
}

async fn carriers(host: &Host) -> Result<()> {
    let handle = rtnl::connect(&host.namespace)?;
    for interface in &host.interfaces {
        let begun = Instant::now();
        // Before 6.8 no query can speed up the kernel's linkwatch, which runs at
        // most once a second.
        while !rtnl::operational(&handle, host.name(), interface.index).await? {
            if begun.elapsed() > READY {
                return Err(Error::Deadline {
                    place: host.name().to_owned(),
                    condition: format!("interface {} to carry (operstate up)", interface.name),
                    waited: READY,
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Waits until every IPv6 address is usable.
async fn addresses(host: &Host) -> Result<()> {
    for address in host.addresses().filter(|address| Family::of(*address) == Family::V6) {
        let begun = Instant::now();
        while !rtnl::is_local(&host.namespace, address)? {
            if begun.elapsed() > READY {
                return Err(Error::Deadline {
                    place: host.name().to_owned(),
                    condition: format!("address {address} to become usable"),
                    waited: READY,
                });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// Hosts for a plan, which needs their descriptors only: all are the namespace of
    /// this thread, in which nothing is made.
    fn hosts(topology: &Topology) -> Vec<Host> {
        let (pending, journal) = (Rc::new(Pending::default()), Rc::new(Journal::default()));
        let host = |node: &crate::topology::Node| Host {
            namespace: Namespace::current(&node.name).expect("/proc is mounted"),
            kind: node.kind,
            interfaces: vec![],
            firewall: None,
            pending: Rc::clone(&pending),
            journal: Rc::clone(&journal),
        };
        topology.nodes.iter().map(host).collect()
    }

    fn planned(topology: &Topology, check: impl FnOnce(&[Host], &[Plan<'_>], &[Wired])) {
        let mut hosts = hosts(topology);
        let wires = topology.links.iter().any(|link| link.wired);
        let wires = wires.then(|| Namespace::current("wires").expect("/proc is mounted"));
        let (plans, of_wires) = plan(topology, &mut hosts, wires.as_ref());
        check(&hosts, &plans, &of_wires);
    }

    fn indices(messages: &[LinkMessage]) -> Vec<u32> {
        messages.iter().map(|message| message.header.index).collect()
    }

    #[test]
    fn a_link_is_made_by_its_first_node_and_brought_up_by_both() {
        let topology = Topology::new()
            .host("client")
            .router("nat")
            .host("server")
            .link("client 10.0.1.2/24", "nat 10.0.1.1/24")
            .link("nat 192.0.2.1/24", "server 192.0.2.2/24");
        planned(&topology, |hosts, plans, wired| {
            assert!(wired.is_empty());
            let made: Vec<_> = plans.iter().map(|plan| indices(&plan.make)).collect();
            assert_eq!(made, [vec![3], vec![4], vec![]]);
            // The loopback interface, and far ends.
            let raised: Vec<_> = plans.iter().map(|plan| indices(&plan.raise)).collect();
            assert_eq!(raised, [vec![1], vec![1, 3], vec![1, 3]]);
            let names = |host: &Host| host.interfaces.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&hosts[1]), ["client", "server"]);
            let nat = &hosts[1].interfaces;
            // The node and the link.
            assert_eq!((nat[0].mac, nat[1].mac), ([2, 0, 1, 0, 0, 0], [2, 0, 1, 0, 0, 1]));
            let addresses: Vec<_> = plans[1].addresses.iter().map(|(i, _, net)| (*i, net.addr())).collect();
            assert_eq!(addresses, [(3, [10, 0, 1, 1].into()), (4, [192, 0, 2, 1].into())]);
            // Each end knows the other's hardware address.
            let neighbour = &plans[0].neighbours[0];
            assert_eq!((neighbour.address, neighbour.mac), ([10, 0, 1, 1].into(), nat[0].mac));
            assert_eq!(plans[0].routes, topology.routes_of(0));
        });
    }

    #[test]
    fn a_wire_has_its_inner_ends_in_a_namespace_of_its_own() {
        let topology = Topology::new()
            .hosts(["a", "b"])
            .link("a 10.0.1.1/24", "b 10.0.1.2/24")
            .wire("a 10.0.2.1/24", "b 10.0.2.2/24");
        planned(&topology, |_, plans, wired| {
            assert_eq!(wired.len(), 1);
            assert_eq!((wired[0].nodes, &wired[0].interfaces), ([0, 1], &["w1-0".into(), "w1-1".into()]));
            // Both nodes make a veth pair to the wire; the last plan is the wire's.
            let made: Vec<_> = plans.iter().map(|plan| indices(&plan.make)).collect();
            assert_eq!(made, [vec![3, 4], vec![4], vec![]]);
            assert_eq!(indices(&plans[2].raise), [5, 6]);
        });
    }

    #[test]
    fn neighbours_have_the_family_of_an_own_address() {
        let topology = Topology::new().hosts(["a", "b"]).link("a 10.0.1.1/24 fd00::1/64", "b fd00::2/64");
        planned(&topology, |_, plans, _| {
            assert_eq!(plans[0].ipv6, ["b"]);
            let of = |plan: &Plan<'_>| plan.neighbours.iter().map(|n| n.address).collect::<Vec<_>>();
            assert_eq!(of(&plans[0]), ["fd00::2".parse::<IpAddr>().unwrap()]);
            // b has no IPv4 address with which it could reach that of a.
            assert_eq!(of(&plans[1]), ["fd00::1".parse::<IpAddr>().unwrap()]);
        });
    }

    #[test]
    fn a_bridge_is_made_first_and_its_links_join_it() {
        let topology = Topology::new()
            .bridge("lan")
            .host("a")
            .router("nat")
            .link("a 10.0.1.2/24", "lan")
            .link("nat 10.0.1.1/24", "lan");
        planned(&topology, |_, plans, _| {
            assert_eq!(indices(&plans[0].make), [BRIDGE_INDEX]);
            assert_eq!(indices(&plans[0].raise), [1, 3, 4]);
            assert!(plans[0].addresses.is_empty() && plans[1].neighbours.is_empty());
        });
    }
}
