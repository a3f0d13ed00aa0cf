//! The differences between two setups, one line for each edit.
//!
//! They are computed from the values, not from the code of the edit, so `show` prints the
//! actual difference.

use std::fmt;

use super::setup::Setup;
use faultlab_net::topology::{Link, Node, Sysctl, Topology};

pub(super) fn differences<C: fmt::Debug>(base: &Setup<C>, arm: &Setup<C>) -> Vec<String> {
    let mut lines = of_networks(&base.network, &arm.network);
    lines.extend(of_conducts(&base.conduct, &arm.conduct));
    lines
}

fn of_networks(base: &Topology, arm: &Topology) -> Vec<String> {
    let mut lines = vec![];
    for node in &arm.nodes {
        let known = base.nodes.iter().find(|n| n.name == node.name);
        match known {
            None => lines.push(format!("{}: a new node", node.name)),
            Some(known) if known != node => lines.extend(of_nodes(known, node)),
            Some(_) => {}
        }
    }
    let gone = base.nodes.iter().filter(|n| arm.nodes.iter().all(|other| other.name != n.name));
    lines.extend(gone.map(|node| format!("{}: no such node", node.name)));
    let named = |network: &Topology| {
        let of = |link: &Link| link_of(network, link);
        network.links.iter().map(of).collect::<Vec<_>>()
    };
    lines.extend(added_and_gone(&named(base), &named(arm), ""));
    lines.extend(of_sysctls("the kernel", &base.kernel, &arm.kernel));
    lines
}

fn of_nodes(base: &Node, arm: &Node) -> Vec<String> {
    let name = &arm.name;
    let mut lines = of_sysctls(name, &base.sysctls, &arm.sysctls);
    let rules = |node: &Node| node.rules.iter().map(|r| format!("rule {r}")).collect::<Vec<_>>();
    let routes = |node: &Node| {
        let route = |r: &faultlab_net::topology::Route| format!("route {} via {}", r.to, r.via);
        node.routes.iter().map(route).collect::<Vec<_>>()
    };
    lines.extend(added_and_gone(&rules(base), &rules(arm), &format!("{name}: ")));
    lines.extend(added_and_gone(&routes(base), &routes(arm), &format!("{name}: ")));
    if base.kind != arm.kind {
        lines.push(format!("{name}: {:?} -> {:?}", base.kind, arm.kind));
    }
    if lines.is_empty() {
        lines.push(format!("{name}: the same in another order"));
    }
    lines
}

fn of_sysctls(place: &str, base: &[Sysctl], arm: &[Sysctl]) -> Vec<String> {
    let lines = |sysctls: &[Sysctl]| {
        sysctls.iter().map(|s| format!("sysctl {}={}", s.key, s.value)).collect::<Vec<_>>()
    };
    let (before, after) = (lines(base), lines(arm));
    let mut lines: Vec<_> =
        after.iter().filter(|s| !before.contains(s)).map(|s| format!("{place}: {s}")).collect();
    let unset = base.iter().filter(|s| arm.iter().all(|other| other.key != s.key));
    lines.extend(unset.map(|s| format!("{place}: sysctl {} is not set", s.key)));
    lines
}

fn added_and_gone(base: &[String], arm: &[String], place: &str) -> Vec<String> {
    let added = arm.iter().filter(|line| !base.contains(line)).map(|line| format!("{place}{line}"));
    let gone = base.iter().filter(|line| !arm.contains(line)).map(|line| format!("{place}no {line}"));
    added.chain(gone).collect()
}

/// `link client 10.0.0.1 - server 10.0.0.2, mtu 1400`.
fn link_of(network: &Topology, link: &Link) -> String {
    let end = |end: &faultlab_net::topology::End| {
        let nets = end.nets.iter().map(ToString::to_string);
        let words: Vec<_> = [network.nodes[end.node].name.clone()].into_iter().chain(nets).collect();
        words.join(" ")
    };
    let kind = if link.wired { "wire" } else { "link" };
    format!("{kind} {} - {}, mtu {}", end(&link.ends[0]), end(&link.ends[1]), link.mtu)
}

fn of_conducts<C: fmt::Debug>(base: &C, arm: &C) -> Vec<String> {
    let (before, after) = (fields(base), fields(arm));
    let old = |name: &str| before.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let changed = after.iter().filter(|(name, value)| old(name) != Some(value));
    changed
        .map(|(name, value)| {
            let old = old(name).map_or("", String::as_str);
            let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
            format!("conduct: {name}{old} -> {value}")
        })
        .collect()
}

/// The fields of a struct and their values, parsed from its `Debug` output; for any other
/// value, one field without a name.
fn fields(value: &impl fmt::Debug) -> Vec<(String, String)> {
    let text = format!("{value:#?}");
    let mut fields: Vec<(String, String)> = vec![];
    for line in text.lines().skip(1) {
        // A line with one level of indentation begins a field, a deeper one continues it.
        match (line.strip_prefix("    "), fields.last_mut()) {
            (Some(field), _) if !field.starts_with([' ', ')', ']', '}']) => {
                let (name, value) = field.split_once(": ").unwrap_or(("", field));
                fields.push((name.to_owned(), value.to_owned()));
            }
            (Some(rest), Some((_, value))) => {
                let rest = rest.trim_start();
                if rest.starts_with([')', ']']) && value.ends_with(',') {
                    value.pop();
                }
                let spaced = value.ends_with([',', '{']) || rest.starts_with('}');
                value.push_str(if spaced { " " } else { "" });
                value.push_str(rest);
            }
            _ => {}
        }
    }
    if fields.is_empty() {
        return vec![(String::new(), text)];
    }
    for (_, value) in &mut fields {
        *value = value.trim_end_matches(',').replace(", }", " }");
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use faultlab_net::topology::rule::{CtState, Rule};

    #[derive(Debug, Clone)]
    struct Keepalive {
        #[allow(dead_code, reason = "only its Debug is read")]
        time: Duration,
        #[allow(dead_code, reason = "only its Debug is read")]
        probes: Option<u32>,
    }

    #[derive(Debug, Clone)]
    struct Conduct {
        first: &'static str,
        keepalive: Option<Keepalive>,
    }

    fn setup() -> Setup<Conduct> {
        let network = Topology::new()
            .host("client")
            .router("node")
            .link("client 10.0.0.2/24", "node 10.0.0.1/24")
            .sysctl("node", "net.ipv4.tcp_timestamps", 1);
        Setup { network, conduct: Conduct { first: "server", keepalive: None } }
    }

    #[test]
    fn every_edit_has_its_line() {
        let base = setup();
        let mut arm = base.clone();
        arm.sysctl("node", "net.ipv4.tcp_timestamps", 0);
        arm.rule("node", Rule::drop("invalid").ct_state(CtState::INVALID));
        arm.change(|network| network.route("node", "default", "10.0.0.2"));
        arm.network.links[0].mtu = 1400;
        arm.kernel_sysctl("net.netfilter.nf_conntrack_max", 16);
        arm.conduct.first = "client: -> ,)";
        arm.conduct.keepalive = Some(Keepalive { time: Duration::from_secs(5), probes: Some(2) });
        assert_eq!(
            differences(&base, &arm),
            [
                "node: sysctl net.ipv4.tcp_timestamps=0",
                "node: rule ct state invalid counter drop",
                "node: route 0.0.0.0/0 via 10.0.0.2",
                "link client 10.0.0.2/24 - node 10.0.0.1/24, mtu 1400",
                "no link client 10.0.0.2/24 - node 10.0.0.1/24, mtu 1500",
                "the kernel: sysctl net.netfilter.nf_conntrack_max=16",
                "conduct: first: \"server\" -> \"client: -> ,)\"",
                "conduct: keepalive: None -> Some(Keepalive { time: 5s, probes: Some(2) })",
            ]
        );
        assert_eq!(differences(&base, &setup()), [""; 0]);
    }

    #[test]
    fn an_edit_that_sets_what_was_set_is_none() {
        let base = setup();
        let mut arm = base.clone();
        arm.sysctl("node", "net.ipv4.tcp_timestamps", 1);
        assert_eq!(differences(&base, &arm), [""; 0]);
        // A rule replaces the rule of the same name, and no other.
        arm.rule("node", Rule::accept("all"));
        arm.rule("node", Rule::drop("all"));
        arm.first_rule("node", Rule::accept("some").tcp());
        let rules: Vec<_> = arm.network.nodes[1].rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["meta l4proto tcp counter accept", "counter drop"]);
    }

    #[test]
    fn a_conduct_that_is_no_struct_is_one_value() {
        assert_eq!(of_conducts(&(), &()), [""; 0]);
        assert_eq!(of_conducts(&1, &2), ["conduct: 1 -> 2"]);
    }
}
