//! How a network is built: all namespaces, then all links, then addresses and
//! routes, then rules; within a step the requests do not wait for each other.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::time::Duration;

use futures_util::future::try_join_all;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::Handle;
use tokio::time::Instant;

use super::firewall::Firewall;
use super::rtnl::{self, VethEnd, answered};
use super::{Host, Interface, Namespace, Network, Wired, offload, sysctl};
use crate::error::{Error, Result};
use crate::topology::{Kind, Link, Topology};

/// The index of a bridge; links count up from the one after it. Indices that
/// the lab sets are the same on every run and every kernel.
const BRIDGE_INDEX: u32 = 2;

/// How long a link may take until it carries.
const CARRIER: Duration = Duration::from_secs(5);

pub(super) async fn build(topology: Topology) -> Result<Network> {
    let mut hosts = namespaces(&topology)?;
    let handles = hosts.iter().map(Host::rtnetlink).collect::<Result<Vec<_>>>()?;
    let workshop = if topology.links.iter().any(|l| l.wired) {
        Some(Namespace::new("the wires' workshop")?)
    } else {
        None
    };
    let wired = links(&topology, &mut hosts, &handles, workshop.as_ref()).await?;
    addresses(&topology, &hosts, &handles).await?;
    carriers(&hosts, &handles).await?;
    for (host, node) in hosts.iter_mut().zip(&topology.nodes) {
        if !node.rules.is_empty() {
            host.firewall = Some(Firewall::install(&host.namespace, &node.rules)?);
        }
    }
    Ok(Network { topology, hosts, workshop, wired: RefCell::new(wired) })
}

fn namespaces(topology: &Topology) -> Result<Vec<Host>> {
    let make = |node: &crate::topology::Node| {
        let namespace = Namespace::new(&node.name)?;
        // Before any link: IPv6 off, or the kernel begins to look for duplicates.
        sysctl::pin(&namespace, &node.sysctls)?;
        Ok(Host { namespace, kind: node.kind, interfaces: vec![], firewall: None })
    };
    topology.nodes.iter().map(make).collect()
}

/// 02:00:00 (locally administered), then the node and the link.
fn mac(node: usize, link: usize) -> [u8; 6] {
    let (node, link) = (node.to_be_bytes(), link.to_be_bytes());
    [2, node[6], node[7], link[5], link[6], link[7]]
}

async fn links(
    topology: &Topology,
    hosts: &mut [Host],
    handles: &[Handle],
    workshop: Option<&Namespace>,
) -> Result<Vec<Wired>> {
    let mut requests: Vec<(usize, LinkMessage)> = vec![];
    for (n, host) in hosts.iter().enumerate() {
        requests.push((n, rtnl::up(1)));
        if host.kind == Kind::Bridge {
            requests.push((n, rtnl::bridge(host.name(), BRIDGE_INDEX)));
        }
    }
    let mut wired = vec![];
    // The ends that are up only once the far one is brought up: host or
    // workshop, and index.
    let mut far_ends: Vec<(Option<usize>, u32)> = vec![];
    for (number, link) in topology.links.iter().enumerate() {
        let [near, far] = [0, 1].map(|end| add_interface(&mut hosts[link.ends[end].node], number, link, end));
        let outer = [&near, &far].map(|(interface, bridge)| VethEnd {
            name: &interface.name,
            index: interface.index,
            mac: interface.mac,
            bridge: *bridge,
        });
        if let (true, Some(workshop)) = (link.wired, workshop) {
            let interfaces = [format!("w{number}-0"), format!("w{number}-1")];
            for side in 0..2 {
                let inner = VethEnd {
                    name: &interfaces[side],
                    index: nth(2 * number + side),
                    mac: mac(0xffff - side, number),
                    bridge: None,
                };
                let request = rtnl::veth(&outer[side], &inner, link.mtu, workshop.as_fd());
                requests.push((link.ends[side].node, request));
                far_ends.push((None, inner.index));
            }
            wired.push(Wired { nodes: [link.ends[0].node, link.ends[1].node], interfaces, taken: false });
        } else {
            let there = hosts[link.ends[1].node].namespace.as_fd();
            requests.push((link.ends[0].node, rtnl::veth(&outer[0], &outer[1], link.mtu, there)));
            far_ends.push((Some(link.ends[1].node), outer[1].index));
        }
    }
    let workshop_handle = workshop.map(rtnl::connect).transpose()?;
    let places: &[Host] = hosts;
    let make = |(node, message): (usize, LinkMessage)| async move {
        let index = message.header.index;
        let link = handles[node].link();
        let request =
            if index == 1 { link.set(message).execute().await } else { link.add(message).execute().await };
        answered(places[node].name(), || format!("make link {index}"), request)
    };
    try_join_all(requests.into_iter().map(make)).await?;
    let raise = |(node, index): (Option<usize>, u32)| {
        let place = node.map_or("the wires' workshop", |n| places[n].name());
        let handle = node.map_or(workshop_handle.as_ref(), |n| Some(&handles[n]));
        async move {
            let Some(handle) = handle else { return Ok(()) };
            answered(
                place,
                || format!("bring link {index} up"),
                handle.link().set(rtnl::up(index)).execute().await,
            )
        }
    };
    try_join_all(far_ends.into_iter().map(raise)).await?;
    for wire in topology.links.iter().filter(|l| l.wired) {
        for end in &wire.ends {
            // A wire carries what a cable would: whole frames, full checksums.
            offload::switch_off(&hosts[end.node].namespace, &end.interface)?;
        }
    }
    Ok(wired)
}

/// The index of the n-th link of a namespace.
fn nth(n: usize) -> u32 {
    BRIDGE_INDEX + 1 + u32::try_from(n).expect("a namespace has fewer than 2^32 links")
}

/// Notes an end of a link in its host, and the bridge it is to join.
fn add_interface(host: &mut Host, number: usize, link: &Link, end: usize) -> (Interface, Option<u32>) {
    let end = &link.ends[end];
    let interface = Interface {
        name: end.interface.clone(),
        index: nth(host.interfaces.len()),
        mac: mac(end.node, number),
        address: end.net.map(|n| n.address),
    };
    host.interfaces.push(interface.clone());
    (interface, (host.kind == Kind::Bridge).then_some(BRIDGE_INDEX))
}

async fn addresses(topology: &Topology, hosts: &[Host], handles: &[Handle]) -> Result<()> {
    let nets = topology.links.iter().flat_map(|l| &l.ends).filter_map(|e| Some((e, e.net?)));
    try_join_all(nets.map(|(end, net)| async move {
        let host = &hosts[end.node];
        let index = host.interface(&end.interface).index;
        let request = handles[end.node].address().add(index, net.address.into(), net.prefix).execute().await;
        answered(host.name(), || format!("add address {} to {}", net.address, end.interface), request)
    }))
    .await?;
    let routes = (0..hosts.len()).flat_map(|n| topology.routes_of(n).into_iter().map(move |r| (n, r)));
    try_join_all(routes.map(|(node, route)| async move {
        let request = handles[node].route().add(rtnl::route(&route)).execute().await;
        let what = || format!("add route to {}/{} via {}", route.to.address, route.to.prefix, route.via);
        answered(hosts[node].name(), what, request)
    }))
    .await?;
    Ok(())
}

async fn carriers(hosts: &[Host], handles: &[Handle]) -> Result<()> {
    let links =
        hosts.iter().zip(handles).flat_map(|(h, handle)| h.interfaces.iter().map(move |i| (h, handle, i)));
    try_join_all(links.map(|(host, handle, interface)| async move {
        let begun = Instant::now();
        // Before 6.8 nothing can be asked that hurries the kernel's linkwatch,
        // which runs at most once a second.
        while !rtnl::operational(handle, host.name(), interface.index).await? {
            if begun.elapsed() > CARRIER {
                return Err(Error::Deadline {
                    place: host.name().to_owned(),
                    condition: format!("interface {} to carry (operstate up)", interface.name),
                    waited: CARRIER,
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }))
    .await?;
    Ok(())
}
