//! The texts of a shell beside a played arm: the greeting, and the result of `check`.

use super::Style;
use faultlab_base::locale;
use faultlab_base::text::Cell;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{Arm, Fault, Recheck};
use faultlab_net::topology::{Kind, Topology};

/// The tools that are available. The suggested commands use busybox's instead of missing
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

/// The greeting: the symptom, the network, the observations, and commands to try. It names
/// neither cause nor cure. `stays` says that the play is paused and goes on.
#[must_use]
pub fn standing(
    scenario: &Fault,
    arm: &Arm,
    topology: &Topology,
    met: &Map<Cell>,
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
        + &style.paragraph("", &format!("{}`exit` ends the shell and the network.", check(scenario, stays)))
}

/// The sentence about the command `check`; empty if there is none.
fn check(scenario: &Fault, stays: bool) -> &'static str {
    match (scenario.recheck, stays) {
        (Recheck::Never, _) | (Recheck::Look, false) => "",
        (_, true) => "`check` looks again at what waits. ",
        (Recheck::Replay, false) => "`check` plays the probes again on the network as you left it. ",
    }
}

/// The result of `check`: whether the symptom is still there, and the cells observed now,
/// with those observed `at_first` where they differ. `stopped` is the error that ended the
/// play before it observed the symptom row.
#[must_use]
pub fn rechecked(
    scenario: &Fault,
    at_first: &Map<Cell>,
    seen: &Map<Cell>,
    stopped: Option<&str>,
    style: Style,
) -> String {
    let symptom = scenario.symptom;
    let verdict = match (stopped, seen.get(symptom.row)) {
        (Some(why), _) => format!("The probes stopped early: {why}"),
        (None, Some(cell)) if cell == symptom.healthy => "The symptom is not there.".to_owned(),
        (None, _) => {
            format!("The symptom is there; in a healthy network, {}: {}", symptom.row, symptom.healthy)
        }
    };
    let row = |(row, cell): &(Cell, Cell)| {
        let before = at_first.get(row).filter(|before| *before != cell);
        let before = before.map_or(String::new(), |before| format!(" (at first: {before})"));
        style.hanging("  ", "    ", &format!("{row}: {cell}{before}"))
    };
    style.paragraph("", &verdict) + &seen.0.iter().map(row).collect::<String>()
}

/// Suggests commands to inspect this network.
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
