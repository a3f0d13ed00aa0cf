//! How a topology draws itself: the node with the most links in the middle,
//! the others left and right of it in the order they were added.
//!
//! `─────` is an ordinary link, `══W══` one whose frames pass through this
//! process.

use std::fmt;

use super::{End, FORWARDING, Kind, Link, Topology};

/// How many links on one side are drawn; the rest is only counted.
const DRAWN: usize = 6;

/// How many addresses of an end are drawn; of more, the first, the last and the number.
const ADDRESSES_MAX: usize = 4;

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.drawing())?;
        for node in &self.nodes {
            for rule in &node.rules {
                writeln!(f, "{}: {rule}", node.name)?;
            }
            for sysctl in node.sysctls.iter().filter(|s| !s.optional && !FORWARDING.contains(&s.key.as_str()))
            {
                writeln!(f, "{}: {} = {}", node.name, sysctl.key, sysctl.value)?;
            }
        }
        for sysctl in &self.kernel {
            writeln!(f, "the kernel: {} = {}", sysctl.key, sysctl.value)?;
        }
        Ok(())
    }
}

fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > DRAWN {
        let more = lines.len() - (DRAWN - 1);
        lines.truncate(DRAWN - 1);
        lines.push(format!("... and {more} more"));
    }
    lines
}

impl Topology {
    /// The nodes, links and addresses, without rules and sysctls.
    #[must_use]
    pub fn drawing(&self) -> String {
        let Some(centre) = self.centre() else { return String::new() };
        let (mut left, mut right, mut apart) = (vec![], vec![], vec![]);
        for link in &self.links {
            match (&link.ends[0], &link.ends[1]) {
                (near, far) | (far, near) if near.node == centre => {
                    if far.node < centre {
                        left.push((link, near, far));
                    } else {
                        right.push((link, near, far));
                    }
                }
                (one, other) => apart.push((link, one, other)),
            }
        }
        let lefts = shortened(left.iter().map(|(l, near, far)| self.line(l, far, near)).collect());
        let rights = shortened(right.iter().map(|(l, near, far)| self.line(l, near, far)).collect());
        let name = self.title(centre);
        let width = lefts.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let height = lefts.len().max(rights.len()).max(1);
        let edge =
            |corner: [&str; 2]| format!("{}{}{}", corner[0], "─".repeat(name.chars().count() + 2), corner[1]);
        let pad = " ".repeat(width);
        let mut text = format!("{pad} {}\n", edge(["┌", "┐"]));
        let named = (height - 1) / 2;
        for row in 0..height {
            let inside = if row == named { name.clone() } else { " ".repeat(name.chars().count()) };
            let (l, r) = (lefts.get(row).map_or("", |s| s), rights.get(row).map_or("", |s| s));
            let line = format!("{l:>width$} │ {inside} │ {r}");
            text.push_str(&format!("{}\n", line.trim_end()));
        }
        text.push_str(&format!("{pad} {}\n", edge(["└", "┘"])));
        for (link, one, other) in &apart {
            text.push_str(&format!("{}\n", self.line(link, one, other).trim()));
        }
        text
    }

    fn centre(&self) -> Option<usize> {
        // The last of the most linked nodes, so that two hosts on one link read
        // from left to right.
        (0..self.nodes.len()).max_by_key(|&n| self.far_ends(n).count())
    }

    fn title(&self, node: usize) -> String {
        let Some(node) = self.nodes.get(node) else { return String::new() };
        match node.kind {
            Kind::Host => node.name.clone(),
            Kind::Router => format!("{} (router)", node.name),
            Kind::Bridge => format!("{} (bridge)", node.name),
        }
    }

    /// `host 10.0.0.2 ──── 10.0.0.1`, without the name of the middle node.
    fn line(&self, link: &Link, from: &End, to: &End) -> String {
        let centre = self.centre();
        let words = |end: &End| {
            let mut words = vec![];
            if Some(end.node) != centre {
                words.push(self.title(end.node));
            }
            let addresses: Vec<_> = end.nets.iter().map(|net| net.addr().to_string()).collect();
            match &addresses[..] {
                [first, .., last] if addresses.len() > ADDRESSES_MAX => {
                    words.push(format!("{first} to {last} ({} addresses)", addresses.len()));
                }
                _ => words.extend(addresses),
            }
            words
        };
        let mut drawn = words(from).join(" ");
        drawn.push_str(if link.wired { " ══W══ " } else { " ───── " });
        if link.mtu != 1500 {
            drawn.push_str(&format!("mtu {} ───── ", link.mtu));
        }
        let mut end = words(to);
        end.reverse();
        drawn.push_str(&end.join(" "));
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_in_the_middle() {
        let drawing = Topology::new()
            .host("host-a")
            .host("host-b")
            .router("nat")
            .host("server")
            .link("host-a 10.0.1.2/24", "nat 10.0.1.1/24")
            .wire("host-b 10.0.2.2/24", "nat 10.0.2.1/24")
            .link("nat 192.0.2.1/24", "server 192.0.2.2/24")
            .mtu(1400)
            .to_string();
        insta::assert_snapshot!(drawing, @r"
                                       ┌──────────────┐
        host-a 10.0.1.2 ───── 10.0.1.1 │ nat (router) │ 192.0.2.1 ───── mtu 1400 ───── 192.0.2.2 server
        host-b 10.0.2.2 ══W══ 10.0.2.1 │              │
                                       └──────────────┘
        ");
    }

    #[test]
    fn an_end_has_addresses_of_both_families() {
        let drawing = Topology::new()
            .host("a")
            .router("gw")
            .link("a 10.0.1.2/24 2001:db8::2/64", "gw 10.0.1.1/24 2001:db8::1/64")
            .to_string();
        insta::assert_snapshot!(drawing, @r"
                                                          ┌─────────────┐
        a 10.0.1.2 2001:db8::2 ───── 2001:db8::1 10.0.1.1 │ gw (router) │
                                                          └─────────────┘
        ");
    }

    #[test]
    fn many_addresses_are_counted() {
        let addresses = (1..=100).fold(String::new(), |all, n| format!("{all} 10.0.0.{n}/24"));
        let drawing = Topology::new().hosts(["a", "b"]).link(&format!("a{addresses}"), "b 10.0.0.200/24");
        assert!(drawing.to_string().contains("a 10.0.0.1 to 10.0.0.100 (100 addresses) ─"), "{drawing}");
    }

    #[test]
    fn many_hosts_are_counted() {
        let mut t = Topology::new().router("gw");
        for n in 0..100 {
            t = t.host(&format!("h{n}")).link(&format!("gw 10.0.{n}.1/24"), &format!("h{n} 10.0.{n}.2/24"));
        }
        assert!(t.to_string().contains("... and 95 more"));
    }
}
