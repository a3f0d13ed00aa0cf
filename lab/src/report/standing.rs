//! What a shell is greeted with: the network that stands around it.

use serde::{Deserialize, Serialize};

use super::Style;
use crate::outcome::Map;
use crate::scenario::{Arm, Scenario};
use crate::topology::{Kind, Topology};

/// What there is to look around with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tools {
    /// This machine's.
    Own,
    /// Those of a busybox, whose `ip` knows no netns.
    Busybox,
}

/// The symptom, the network, what the probes met, and what to try; neither
/// cause nor cure.
#[must_use]
pub fn standing(
    scenario: &Scenario,
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
        + &style.part("The network around you", &textwrap::indent(&topology.to_string(), "  "))
        + &style.part(met_when, &cells.collect::<String>())
        + &style.part("Try", &tries(topology, tools))
        + "`exit` ends the shell and the network.\n"
}

/// Commands that say something here.
pub(super) fn tries(topology: &Topology, tools: Tools) -> String {
    let of = |kind: Kind| topology.nodes.iter().filter(move |n| n.kind == kind).map(|n| n.name.as_str());
    let (list, enter, sockets, watch) = match tools {
        Tools::Own => ("ip netns list", "ip netns exec ", "ss -tanie", "tcpdump -ni any &"),
        Tools::Busybox => ("ls /run/netns", "nsenter --net=/run/netns/", "netstat -tan", "ip addr"),
    };
    let mut lines = vec![list.to_owned()];
    if let (Some(first), Some(last)) = (of(Kind::Host).next(), of(Kind::Host).next_back()) {
        let index = topology.index(last);
        let ends = topology.links.iter().flat_map(|l| &l.ends);
        if let Some(net) = ends.filter(|e| e.node == index).find_map(|e| e.net) {
            lines.push(format!("{enter}{first} ping -c 1 {}", net.address));
        }
        lines.push(format!("{enter}{last} {sockets}"));
        lines.push(format!("{enter}{last} {watch}"));
    }
    if tools == Tools::Own {
        if let Some(node) = topology.nodes.iter().find(|n| !n.rules.is_empty()) {
            lines.push(format!("{enter}{} nft list ruleset", node.name));
        }
        lines.push("nsenter --net=/run/netns/NAME COMMAND, where there is no ip".to_owned());
    }
    textwrap::indent(&(lines.join("\n") + "\n"), "  ")
}
