//! What an exercise says: the symptom and the network, then a hint at a time,
//! what an attempt met, and in the end the story.

use super::Style;
use super::standing::{self, Tools};
use crate::outcome::Map;
use crate::scenario::{Arm, ArmKind, Ground, Plan, Scenario};
use crate::topology::Topology;

/// The symptom, the network without what was set up on it, and the commands;
/// nothing of the cause.
#[must_use]
pub fn greeting(scenario: &Scenario, topology: &Topology, met: &Map<String>, style: Style) -> String {
    let commands = "  hint      tells a little more each time\n  check     plays the probes again on the network as \
                    you left it: is it cured?\n  solution  tells the story\n";
    style.bold("An exercise: something is wrong here. Find it, and cure it on the nodes.")
        + "\n"
        + &style.part("What people saw", &style.paragraph("  ", scenario.card.saw))
        + &style.part("The network around you", &textwrap::indent(&topology.drawing(), "  "))
        + &style.part("What the probes met in it just now", &style.paragraph("  ", &symptom(scenario, met)))
        + &style.part("Commands of the exercise", commands)
        + &style.part("Try", &standing::tries(topology, Tools::Own))
        + "Change what you like on the nodes: sysctls, rules, routes. `exit` ends the shell and the network.\n"
}

/// The symptom's cell beside that of a healthy network.
#[must_use]
pub fn symptom(scenario: &Scenario, met: &Map<String>) -> String {
    let (row, healthy) = (scenario.symptom.row, scenario.symptom.healthy);
    let cell = met.get(row).map_or("not seen", String::as_str);
    format!("{row}: {cell} (in a healthy network: {healthy})")
}

/// The hints, each of them nearer: family and place, function, cause, remedies.
#[must_use]
pub fn hints(scenario: &Scenario, ground: &Ground) -> Vec<String> {
    let card = &scenario.card;
    let arms = scenario.arms_on(ground, &[]);
    let network = |arm: &Arm| (scenario.topology)(&Plan { ground, arm, acts: arm.name });
    let fault = arms.iter().find(|a| a.kind == ArmKind::Fault).map(|arm| network(arm)).unwrap_or_default();
    let mut places: Vec<String> = vec![];
    let mut remedies = String::new();
    for arm in arms.iter().filter(|a| matches!(a.kind, ArmKind::Control | ArmKind::Remedy)) {
        let nodes = differing(&fault, &network(arm));
        if arm.kind == ArmKind::Remedy {
            let place = if nodes.is_empty() { String::new() } else { format!(" [{}]", nodes.join(", ")) };
            remedies.push_str(&format!(" {}{place}: {}.", arm.name, arm.change));
        }
        places.extend(nodes);
    }
    places.sort_unstable();
    places.dedup();
    let look = if places.is_empty() {
        "No node has a rule, sysctl or route that the healthy network has not.".to_owned()
    } else {
        format!("Look at: {}.", places.join(", "))
    };
    vec![
        format!("It belongs to: {}. {look}", card.family),
        format!("It is decided in: {}", card.function),
        card.cause.to_owned(),
        format!(
            "People try these, and not all of them help:{remedies} In brackets is the node that a remedy changes; what \
             changes none is the application's or the network's to do, not yours here."
        ),
    ]
}

/// The nodes whose rules, sysctls or routes are not the same in two networks.
fn differing(one: &Topology, other: &Topology) -> Vec<String> {
    let changed = one.nodes.iter().filter(|node| !other.nodes.contains(node));
    changed.map(|node| node.name.clone()).collect()
}

/// Why it happens and what ends it.
#[must_use]
pub fn solution(scenario: &Scenario, style: Style) -> String {
    let card = &scenario.card;
    let why = style.paragraph("  ", card.cause) + &style.hanging("  Decided in: ", "    ", card.function);
    let reading: String = card.reading.iter().map(|r| style.hanging("  ", "    ", r)).collect();
    style.bold(card.title)
        + "\n"
        + &style.part("Why", &why)
        + &style.part("What cures it", &style.paragraph("  ", card.cure))
        + &style.part("Reading", &reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_differs_where_a_node_does() {
        let network = || {
            let hosts = Topology::new().host("client").router("node").host("server");
            hosts
                .link("client 10.0.1.2/24", "node 10.0.1.1/24")
                .link("node 10.0.2.1/24", "server 10.0.2.2/24")
        };
        assert!(differing(&network(), &network()).is_empty());
        let other = network().sysctl("node", "net.ipv4.ip_default_ttl", 1);
        assert_eq!(differing(&network(), &other), ["node"]);
    }
}
