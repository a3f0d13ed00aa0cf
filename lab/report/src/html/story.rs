//! The part of the report about a scenario: its card and drawings of its network.

use std::fmt::Write;

use crate::escaped::Escaped;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::{ArmKind, Fault};
use faultlab_net::topology::Topology;

/// The maximum number of links in the text alternative of a drawing.
const LINKS: usize = 8;

pub(super) fn tell(text: &mut String, scenario: &Fault, outcome: &Outcome) {
    let card = &scenario.card;
    let mut part = |heading: &str, body: &str| {
        let _ = writeln!(text, "<h3>{heading}</h3>\n<p>{}</p>", Escaped(body));
    };
    part("What people saw", card.saw);
    part("Why", card.cause);
    let _ = writeln!(text, "<p>Decided in <code>{}</code>.</p>", Escaped(card.function));
    let _ = writeln!(text, "<h3>What cures it</h3>\n<p>{}</p>", Escaped(card.cure));
    text.push_str("<h3>The network</h3>\n");
    for (caption, topology) in drawings(scenario, outcome) {
        let _ = writeln!(text, "<figure>\n<figcaption>{caption}</figcaption>");
        super::open_wide(text, &format!("The network: {caption}"));
        let _ = writeln!(
            text,
            "<pre role=\"img\" aria-label=\"{}\">{}</pre>\n</div>\n</figure>",
            Escaped(&alternative(&topology)),
            Escaped(topology.to_string().trim_end()),
        );
    }
    text.push_str("<details>\n<summary>Reading</summary>\n<ul>\n");
    for line in card.reading {
        let _ = writeln!(text, "<li>{}</li>", Escaped(line));
    }
    text.push_str("</ul>\n</details>\n");
}

/// The networks of control and fault with their captions; one if their drawings are the
/// same.
fn drawings(scenario: &Fault, outcome: &Outcome) -> Vec<(&'static str, Topology)> {
    let arms = scenario.arms_on(&outcome.environment(scenario), &[]);
    let of = |kind: ArmKind| arms.iter().find(|arm| arm.kind == kind).map(|arm| arm.network.clone());
    match (of(ArmKind::Control), of(ArmKind::Fault)) {
        (Some(control), Some(fault)) if control.to_string() == fault.to_string() => {
            vec![("in control and fault", fault)]
        }
        (control, fault) => {
            let drawn = [("in the control arm", control), ("in the fault arm", fault)];
            drawn.into_iter().filter_map(|(caption, topology)| Some((caption, topology?))).collect()
        }
    }
}

fn alternative(topology: &Topology) -> String {
    let name = |node: usize| topology.nodes.get(node).map_or("?", |n| n.name.as_str());
    let mut links: Vec<_> = topology
        .links
        .iter()
        .take(LINKS)
        .map(|link| format!("{} is linked to {}", name(link.ends[0].node), name(link.ends[1].node)))
        .collect();
    if topology.links.len() > LINKS {
        links.push(format!("and {} more links", topology.links.len() - LINKS));
    }
    links.join(", ")
}
