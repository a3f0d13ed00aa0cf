//! The greeting of a shell: the network around it.

use super::Style;
use faultlab_base::locale;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{Arm, Fault};
use faultlab_net::topology::{Kind, Topology};

/// The tools that are available; busybox's tools are suggested instead of missing
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a program that is there or not")]
pub struct Tools {
    /// iproute2's ip, which supports netns.
    pub ip: bool,
    /// iproute2's ss.
    pub ss: bool,
    /// tcpdump.
    pub tcpdump: bool,
    /// nftables' nft.
    pub nft: bool,
}

/// The symptom, the network, what the probes met, and what to try. Reveals neither
/// cause nor cure.
#[must_use]
pub fn standing(
    scenario: &Fault,
    arm: &Arm,
    topology: &Topology,
    met: &Map<String>,
    stays: bool,
    tools: Tools,
    style: Style,
) -> String {
    let cells = met.0.iter().map(|(row, cell)| style.hanging("  ", "    ", &format!("{row}: {cell}")));
    let met_when = if stays {
        "What the probes met in it so far; what waits goes on waiting"
    } else {
        "What the probes met in it just now; they have ended"
    };
    style.bold(&format!("{}, {} arm", scenario.card.name, arm.name))
        + "\n"
        + &style.paragraph("  ", arm.change)
        + &style.part("What people saw", &style.paragraph("  ", scenario.card.saw))
        + &style
            .part("The network around you", &textwrap::indent(&locale::drawn(&topology.to_string()), "  "))
        + &style.part(met_when, &cells.collect::<String>())
        + &style.part("Try", &tries(topology, tools))
        + "`exit` ends the shell and the network.\n"
}

/// Commands that are informative in this network.
pub(super) fn tries(topology: &Topology, tools: Tools) -> String {
    let of = |kind: Kind| topology.nodes.iter().filter(move |n| n.kind == kind).map(|n| n.name.as_str());
    let enter = if tools.ip { "ip netns exec " } else { "nsenter --net=/run/netns/" };
    let list = if tools.ip { "ip netns list" } else { "ls /run/netns" };
    let sockets = if tools.ss { "ss -tanie" } else { "netstat -tan" };
    let watch = if tools.tcpdump { "tcpdump -ni any &" } else { "ip addr" };
    let mut lines = vec![list.to_owned()];
    if let (Some(first), Some(last)) = (of(Kind::Host).next(), of(Kind::Host).next_back()) {
        let index = topology.index(last);
        let ends = topology.links.iter().flat_map(|l| &l.ends);
        if let Some(net) = ends.filter(|e| e.node == index).flat_map(|e| &e.nets).next() {
            lines.push(format!("{enter}{first} ping -c 1 {}", net.addr()));
        }
        lines.push(format!("{enter}{last} {sockets}"));
        lines.push(format!("{enter}{last} {watch}"));
    }
    if let Some(node) = topology.nodes.iter().find(|n| tools.nft && !n.rules.is_empty()) {
        lines.push(format!("{enter}{} nft list ruleset", node.name));
    }
    textwrap::indent(&(lines.join("\n") + "\n"), "  ")
}
