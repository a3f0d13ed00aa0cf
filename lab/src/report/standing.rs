//! What a shell is greeted with: the network that stands around it.

use super::Style;
use crate::outcome::Map;
use crate::scenario::{Arm, Scenario};
use crate::topology::{Kind, Topology};

/// The symptom, the network, what the probes met, and what to try; neither
/// cause nor cure.
#[must_use]
pub fn standing(
    scenario: &Scenario,
    arm: &Arm,
    topology: &Topology,
    met: &Map<String>,
    style: Style,
) -> String {
    let mut text = format!("{}\n", style.bold(&format!("{}, {} arm", scenario.card.name, arm.name)));
    text.push_str(&style.paragraph("  ", arm.change));
    let mut part = |heading: &str, body: &str| {
        text.push_str(&style.bold(heading));
        text.push('\n');
        text.push_str(body);
    };
    part("What people saw", &style.paragraph("  ", scenario.card.saw));
    part("The network around you", &textwrap::indent(&topology.to_string(), "  "));
    let cells = met.0.iter().map(|(row, cell)| style.hanging("  ", "    ", &format!("{row}: {cell}")));
    part("What the probes met in it just now; they have ended", &cells.collect::<String>());
    part("Try", &tries(topology));
    text.push_str("`exit` ends the shell and the network.\n");
    text
}

/// Commands that say something here.
fn tries(topology: &Topology) -> String {
    let of = |kind: Kind| topology.nodes.iter().filter(move |n| n.kind == kind).map(|n| n.name.as_str());
    let mut lines = vec!["ip netns list".to_owned()];
    if let (Some(first), Some(last)) = (of(Kind::Host).next(), of(Kind::Host).next_back()) {
        let index = topology.index(last);
        let ends = topology.links.iter().flat_map(|l| &l.ends);
        if let Some(net) = ends.filter(|e| e.node == index).find_map(|e| e.net) {
            lines.push(format!("ip netns exec {first} ping -c 1 {}", net.address));
        }
        lines.push(format!("ip netns exec {last} ss -tanie"));
        lines.push(format!("ip netns exec {last} tcpdump -ni any &"));
    }
    if let Some(node) = topology.nodes.iter().find(|n| !n.rules.is_empty()) {
        lines.push(format!("ip netns exec {} nft list ruleset", node.name));
    }
    lines.push("nsenter --net=/run/netns/NAME COMMAND, where there is no ip\n".to_owned());
    textwrap::indent(&lines.join("\n"), "  ")
}
