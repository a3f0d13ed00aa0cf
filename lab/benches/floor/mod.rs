//! The floor: a minimal netlink program that creates the same kernel objects as
//! `Network::build`.
//!
//! These are interfaces with the same indices, names and Ethernet addresses, pinned
//! sysctls, addresses, routes, rules, and links that are up. It is synchronous, sends
//! many requests at once, and does not say where a request failed.

mod batch;

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use lab::network::Namespace;
use lab::network::firewall::Firewall;
use lab::topology::{Kind, Link, Topology};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getegid, geteuid};

use batch::{Batch, End};

const BRIDGE: u32 = 2;

/// A network that has been built.
pub struct Floor {
    namespaces: Vec<Namespace>,
    _firewalls: Vec<Firewall>,
}

impl Floor {
    /// Builds a topology. The calling thread is in the namespace `home` afterwards.
    pub fn build(topology: &Topology, home: &Namespace) -> Self {
        let mut places: Vec<(Namespace, Batch)> = topology
            .nodes
            .iter()
            .map(|node| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
                for pin in &node.sysctls {
                    let written = fs::write(format!("/proc/sys/{}", pin.key.replace('.', "/")), &pin.value);
                    assert!(written.is_ok() || pin.optional, "{}", pin.key);
                }
                (Namespace::current(node.name.clone()).expect("its descriptor"), Batch::open())
            })
            .collect();
        setns(home.as_fd(), CloneFlags::CLONE_NEWNET).expect("the way home");

        for ((_, batch), node) in places.iter_mut().zip(&topology.nodes) {
            batch.up(1);
            if node.kind == Kind::Bridge {
                batch.bridge(&node.name, BRIDGE);
            }
        }
        let indices = indices(topology);
        for ((number, link), index) in topology.links.iter().enumerate().zip(&indices) {
            let [near, far] = [0, 1].map(|side| end(topology, number, link, side, index[side]));
            let there = places[link.ends[1].node].0.as_fd().as_raw_fd();
            places[link.ends[0].node].1.veth(&near, &far, there);
        }
        for (_, batch) in &mut places {
            batch.finish();
        }

        for ((number, link), index) in topology.links.iter().enumerate().zip(&indices) {
            match topology.nodes[link.ends[1].node].kind {
                Kind::Bridge => places[link.ends[1].node].1.join(index[1], BRIDGE),
                Kind::Host | Kind::Router => places[link.ends[1].node].1.up(index[1]),
            }
            for (end, index) in link.ends.iter().zip(index) {
                for net in &end.nets {
                    places[end.node].1.address(*index, v4(net.addr()), net.prefix_len());
                }
            }
            if let [Some(one), Some(other)] = link.ends.each_ref().map(|end| end.nets.first()) {
                for (here, there, net) in [(0, 1, other), (1, 0, one)] {
                    let mac = mac(link.ends[there].node, number);
                    places[link.ends[here].node].1.neighbour(index[here], v4(net.addr()), mac);
                }
            }
        }
        for (node, (_, batch)) in places.iter_mut().enumerate() {
            for route in topology.routes_of(node) {
                batch.route(v4(route.to.addr()), route.to.prefix_len(), v4(route.via));
            }
            batch.finish();
        }

        let links = topology.links.iter().zip(&indices);
        let mut ends: Vec<Vec<u32>> = vec![vec![]; places.len()];
        for (end, index) in links.flat_map(|(link, index)| link.ends.iter().zip(index)) {
            ends[end.node].push(*index);
        }
        for ((_, batch), ends) in places.iter_mut().zip(&ends) {
            loop {
                for index in ends {
                    batch.carrier(*index);
                }
                if batch.finish() as usize == ends.len() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        let namespaces: Vec<_> = places.into_iter().map(|(namespace, _)| namespace).collect();
        let with_rules = namespaces.iter().zip(&topology.nodes).filter(|(_, node)| !node.rules.is_empty());
        let firewalls = with_rules.map(|(n, node)| Firewall::install(n, &node.rules).expect("rules"));
        Self { _firewalls: firewalls.collect(), namespaces }
    }

    /// The namespace of a node, by its index in the topology.
    pub fn namespace(&self, node: usize) -> &Namespace {
        &self.namespaces[node]
    }
}

/// Moves this process into new user, network, mount and PID namespaces, with one mapped
/// id and a new /proc. This is the least that a program needs to leave the machine
/// unchanged.
pub fn isolate() {
    let (user, group) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags | CloneFlags::CLONE_NEWPID).expect("namespaces");
    fs::write("/proc/self/setgroups", "deny").expect("a user namespace");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).expect("a user");
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).expect("a group");
    // SAFETY: this process has one thread, so the child may do anything.
    #[allow(unsafe_code, reason = "fork, see SAFETY")]
    if let ForkResult::Parent { child } = unsafe { fork() }.expect("a process") {
        let status = waitpid(child, None);
        std::process::exit(i32::from(!matches!(status, Ok(WaitStatus::Exited(_, 0)))));
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a private /");
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).expect("/proc");
}

/// The interface indices of both ends of every link; each node counts separately.
fn indices(topology: &Topology) -> Vec<[u32; 2]> {
    let mut next = vec![BRIDGE + 1; topology.nodes.len()];
    let mut take = |node: usize| {
        next[node] += 1;
        next[node] - 1
    };
    topology.links.iter().map(|link| [take(link.ends[0].node), take(link.ends[1].node)]).collect()
}

fn end<'a>(topology: &Topology, number: usize, link: &'a Link, side: usize, index: u32) -> End<'a> {
    let end = &link.ends[side];
    // A far end is added to its bridge when it is brought up.
    let joins = side == 0 && topology.nodes[end.node].kind == Kind::Bridge;
    End {
        name: &end.interface,
        index,
        mac: mac(end.node, number),
        mtu: link.mtu,
        bridge: joins.then_some(BRIDGE),
    }
}

fn mac(node: usize, number: usize) -> [u8; 6] {
    let (node, number) = (node.to_be_bytes(), number.to_be_bytes());
    [2, node[6], node[7], number[5], number[6], number[7]]
}

/// Creates a veth pair named `name` between the namespaces of the calling thread and
/// another one.
pub fn link_into(namespace: &Namespace, name: &str) {
    let end = |index| End { name, index, mac: [2, 0, 0, 0, 0, 1], mtu: 1500, bridge: None };
    let mut batch = Batch::open();
    batch.veth(&end(BRIDGE), &end(BRIDGE), namespace.as_fd().as_raw_fd());
    batch.finish();
}

/// The benchmarks' topologies have IPv4 addresses only.
fn v4(address: std::net::IpAddr) -> std::net::Ipv4Addr {
    match address {
        std::net::IpAddr::V4(v4) => v4,
        std::net::IpAddr::V6(v6) => panic!("{v6} is not IPv4"),
    }
}
