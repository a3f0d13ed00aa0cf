//! The texts of an exercise: the greeting with the symptom and the network, the hints, the
//! result of a check, and the solution.

use std::collections::BTreeSet;

use super::Style;
use super::standing::{self, Tools};
use faultlab_base::locale;
use faultlab_base::text::Cell;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{Arm, ArmKind, Environment, Fault, Recheck};
use faultlab_net::topology::Topology;

/// Stands for a node where a sysctl is global to the kernel.
const WHOLE_KERNEL: &str = "the whole kernel";

/// The greeting: the symptom, the network without its rules and sysctls, and the commands. It
/// does not reveal the cause.
#[must_use]
pub fn greeting(
    scenario: &Fault,
    env: &Environment,
    topology: &Topology,
    met: &Map<Cell>,
    tools: Tools,
    style: Style,
) -> String {
    let places = places(scenario, env);
    let looks = scenario.recheck == Recheck::Look;
    let task = if looks {
        "Find what is waited for, and end it."
    } else if places.is_empty() {
        "Find it; what people cure it with is not a node's to change."
    } else {
        "Find it, and cure it on the nodes."
    };
    let check = if looks {
        "looks at what waits, after all that you did: is it cured?"
    } else {
        "plays the probes again on the network as you left it: is it cured?"
    };
    let yours = if looks {
        "End what you like: processes, devices."
    } else if places.iter().any(|place| place == WHOLE_KERNEL) {
        "Change what you like on the nodes: sysctls, rules, routes; and the sysctls of the whole kernel."
    } else {
        "Change what you like on the nodes: sysctls, rules, routes."
    };
    let commands = format!(
        "  hint      tells a little more each time\n  check     {check}\n  solution  tells the story\n"
    );
    style.bold(&format!("An exercise: something is wrong here. {task}"))
        + "\n"
        + &style.part("What people saw", &style.paragraph("  ", scenario.card.saw))
        + &style.part("The network around you", &textwrap::indent(&locale::drawn(&topology.drawing()), "  "))
        + &style.part("What the probes met in it just now", &style.paragraph("  ", &symptom(scenario, met)))
        + &style.part("Commands of the exercise", &commands)
        + &style.part("Try", &standing::tries(topology, tools))
        + yours
        + " `exit` ends the shell and the network.\n"
}

/// The observed symptom cell, and that of a healthy network.
#[must_use]
pub fn symptom(scenario: &Fault, met: &Map<Cell>) -> String {
    let (row, healthy) = (scenario.symptom.row, scenario.symptom.healthy);
    let cell = met.get(row).map_or("not seen", Cell::as_str);
    format!("{row}: {cell} (in a healthy network: {healthy})")
}

/// Whether a trainee can solve the exercise in the shell: by ending what the play waits
/// for, or by changes on the nodes.
#[must_use]
pub fn can_be_solved(scenario: &Fault, env: &Environment) -> bool {
    scenario.recheck == Recheck::Look || !places(scenario, env).is_empty()
}

/// The hints, from vague to specific: nodes, family, kernel function, cause, remedies.
#[must_use]
pub fn hints(scenario: &Fault, env: &Environment) -> Vec<String> {
    let card = &scenario.card;
    let places = places(scenario, env);
    let look = if places.is_empty() {
        "No node has a rule, sysctl or route that the healthy network has not.".to_owned()
    } else {
        format!("Look at: {}.", places.join(", "))
    };
    let mut remedies = String::new();
    let arms = scenario.arms_on(env, &[]);
    for arm in &arms {
        let nodes = changed(&arms, arm);
        let name = match arm.kind {
            ArmKind::Remedy => arm.name,
            ArmKind::Control if !nodes.is_empty() => "the healthy network",
            _ => continue,
        };
        let place = if nodes.is_empty() { String::new() } else { format!(" [{}]", nodes.join(", ")) };
        remedies.push_str(&format!(" {name}{place}: {}.", arm.change));
    }
    let whose = if scenario.recheck == Recheck::Look {
        "All of it is yours to try here, where it is not too late."
    } else {
        "In brackets is what is not as with the fault; where there is nothing, it is the application's or the network's to \
         do, not yours here."
    };
    vec![
        look,
        format!("It belongs to: {}.", card.family),
        format!("It is decided in: {}", card.function),
        card.cause.to_owned(),
        format!("What may help, though not all of it does:{remedies} {whose}"),
    ]
}

/// The nodes that the control or a remedy changes, compared with the fault's network.
fn places(scenario: &Fault, env: &Environment) -> Vec<String> {
    let arms = scenario.arms_on(env, &[]);
    let others = arms.iter().filter(|arm| matches!(arm.kind, ArmKind::Control | ArmKind::Remedy));
    let nodes: BTreeSet<_> = others.flat_map(|arm| changed(&arms, arm)).collect();
    nodes.into_iter().collect()
}

/// The nodes that an arm changes, compared with the fault's network; [`WHOLE_KERNEL`] if
/// it changes a sysctl that is global to the kernel.
fn changed(arms: &[Arm], arm: &Arm) -> Vec<String> {
    let fault = arms.iter().find(|a| a.kind == ArmKind::Fault);
    fault.map_or(vec![], |fault| differing(&fault.network, &arm.network))
}

/// The nodes whose kind, rules, sysctls or routes differ between two networks, and
/// [`WHOLE_KERNEL`] if global sysctls differ.
fn differing(one: &Topology, other: &Topology) -> Vec<String> {
    let changed = one.nodes.iter().filter(|node| !other.nodes.contains(node));
    let mut places: Vec<_> = changed.map(|node| node.name.clone()).collect();
    if one.kernel != other.kernel {
        places.push(WHOLE_KERNEL.to_owned());
    }
    places
}

/// The solution: the cause and what cures it.
#[must_use]
pub fn solution(scenario: &Fault, style: Style) -> String {
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
        let other = network().kernel_sysctl("net.netfilter.nf_conntrack_max", 1);
        assert_eq!(differing(&network(), &other), [WHOLE_KERNEL]);
        let other = network().sysctl("node", "net.ipv4.ip_default_ttl", 1);
        assert_eq!(differing(&network(), &other), ["node"]);
    }
}
