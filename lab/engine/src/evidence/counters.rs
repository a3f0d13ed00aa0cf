//! The kernel's counters of one network namespace, and their changes.
//!
//! Reading list: net/ipv4/proc.c and net/ipv6/proc.c for the names; RFC 1213 for the
//! groups Ip, Icmp, Tcp and Udp. `nstat -az` shows the same.
//!
//! Tcp and TcpExt count the segments of both families. For IPv6, the group is part of
//! the counter's name: `Ip6InNoRoutes`.
//!
//! The set of counters differs between kernels: `PAWSPassive` was removed in 4.12. A
//! counter that this kernel does not have is `None`; one that did not change is 0.

use std::fmt;
use std::fs;
use std::rc::Rc;

use faultlab_base::error::{Error, Result};
use faultlab_net::network::namespace::of_this_thread;
use faultlab_net::network::{Namespace, sysctl};
use faultlab_net::wire::all as wires;

/// net/ipv6/proc.c: the prefixes of the names in /proc/net/snmp6.
const IPV6_GROUPS: [&str; 4] = ["Ip6", "Icmp6", "Udp6", "UdpLite6"];

/// The sysctl that disables IPv6 in a namespace.
const DISABLE_IPV6: &str = "net.ipv6.conf.all.disable_ipv6";

/// A short name that exists in several groups means the first of these.
const PRECEDENCE: [&str; 5] = ["TcpExt", "Tcp", "IpExt", "Ip", "Udp"];

/// A reading of /proc/net/netstat, /proc/net/snmp and, if the kernel has IPv6,
/// /proc/net/snmp6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    groups: Vec<Group>,
}

/// A group, as the kernel's two lines. They are split only when a change is
/// requested: there are hundreds of names, and a guest's time passes meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    names: String,
    numbers: String,
}

/// The words of a line. Splitting at a char is faster than at any white space.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').filter(|word| !word.is_empty())
}

impl Group {
    /// The counters with a number.
    fn counters(&self) -> impl Iterator<Item = (&str, i64)> {
        words(&self.names).zip(words(&self.numbers)).filter_map(|(name, n)| Some((name, number_of(n)?)))
    }

    /// The value of a counter; 0 if it did not exist yet.
    fn value(this: Option<&Self>, short: &str) -> i64 {
        let same = this.and_then(|group| group.counters().find(|(name, _)| *name == short));
        same.map_or(0, |(_, value)| value)
    }
}

/// A counter's name, ordered by its short name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    short: String,
    group: Rc<str>,
}

impl Counters {
    /// Reads the counters of a namespace.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn read(namespace: &Namespace) -> Result<Self> {
        // In a guest, reading a file takes milliseconds, and frames wait meanwhile.
        let read = |file: &str| {
            let text = namespace.enter(|| fs::read_to_string(of_this_thread(file)));
            wires::carry();
            text.map_err(|source| Error::kernel(namespace.name(), format!("read {file}"), source))
        };
        let mut counters = Self::parse(&read("net/netstat")?, &read("net/snmp")?);
        // A namespace with IPv6 disabled counts nothing there, and a kernel without
        // IPv6 has no such file.
        let is_off = sysctl::get(namespace, DISABLE_IPV6).is_ok_and(|value| value == "1");
        if !is_off && let Ok(snmp6) = read("net/snmp6") {
            counters.add_ipv6(&snmp6);
        }
        Ok(counters)
    }

    /// Parses the text of /proc/net/netstat and /proc/net/snmp. Each group is two
    /// lines with the same prefix, one of names and one of values. Anything else is
    /// ignored.
    #[must_use]
    pub fn parse(netstat: &str, snmp: &str) -> Self {
        let mut groups = vec![];
        for text in [netstat, snmp] {
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                let Some((name, names)) = line.split_once(": ") else { continue };
                let Some(numbers) = lines.peek().and_then(|next| next.strip_prefix(name)?.strip_prefix(": "))
                else {
                    continue;
                };
                let [name, names, numbers] = [name, names, numbers].map(str::to_owned);
                groups.push(Group { name, names, numbers });
                lines.next();
            }
        }
        Self { groups }
    }

    /// Adds the text of /proc/net/snmp6: a name and a value on each line. Anything
    /// else is ignored.
    fn add_ipv6(&mut self, snmp6: &str) {
        let mut groups = IPV6_GROUPS.map(|name| Group {
            name: name.to_owned(),
            names: String::new(),
            numbers: String::new(),
        });
        for line in snmp6.lines() {
            let Some((short, number)) = line.split_once([' ', '\t']) else { continue };
            let Some(group) = groups.iter_mut().find(|group| short.starts_with(&group.name)) else {
                continue;
            };
            for (text, word) in [(&mut group.names, short), (&mut group.numbers, number.trim())] {
                text.push_str(word);
                text.push(' ');
            }
        }
        self.groups.extend(groups);
    }

    /// The value of a counter, by its short name (`PAWSPassive`) or with its group
    /// (`TcpExt.PAWSPassive`). `None` if this kernel has no such counter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        Self::changes(&Self::default(), self).get(name)
    }

    /// The changes from this reading to a later one.
    #[must_use]
    pub fn changes(before: &Self, after: &Self) -> Changes {
        let mut deltas = vec![];
        for group in &after.groups {
            let name = Rc::from(group.name.as_str());
            let mut add = |short: &str, delta| {
                deltas.push((Name { short: short.to_owned(), group: Rc::clone(&name) }, delta));
            };
            let old = before.groups.iter().find(|old| old.name == group.name);
            match old.filter(|old| old.names == group.names) {
                Some(old) => {
                    let both = words(&group.numbers).zip(words(&old.numbers));
                    for (short, (new, old)) in words(&group.names).zip(both) {
                        // Most did not move.
                        if new == old {
                            add(short, 0);
                        } else if let (Some(new), Some(old)) = (number_of(new), number_of(old)) {
                            add(short, new.wrapping_sub(old));
                        }
                    }
                }
                // The columns of IcmpMsg appear when they are first incremented.
                None => group.counters().for_each(|(short, value)| {
                    add(short, value.wrapping_sub(Group::value(old, short)));
                }),
            }
            // TcpExt alone has more than a hundred.
            wires::carry();
        }
        Changes { deltas }
    }
}

/// The kernel prints 64 bits, signed for a few (`Tcp.MaxConn` is -1).
fn number_of(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| text.parse().ok().map(u64::cast_signed))
}

/// Counters that ordinary traffic moves.
const TRAFFIC: [&str; 51] = [
    "ActiveOpens",
    "CurrEstab",
    "DelayedACKs",
    "ForwDatagrams",
    // Neighbour discovery and multicast group reports; the totals of all messages.
    "Icmp6InMsgs",
    "Icmp6OutMsgs",
    "Icmp6InMLDv2Reports",
    "Icmp6OutMLDv2Reports",
    "Icmp6InNeighborAdvertisements",
    "Icmp6InNeighborSolicits",
    "Icmp6OutNeighborAdvertisements",
    "Icmp6OutNeighborSolicits",
    "Icmp6InType135",
    "Icmp6InType136",
    "Icmp6InType143",
    "Icmp6OutType135",
    "Icmp6OutType136",
    "Icmp6OutType143",
    "InBcastPkts",
    "InDelivers",
    "InNoECTPkts",
    "InOctets",
    "InReceives",
    "InSegs",
    "Ip6InDelivers",
    "Ip6InMcastOctets",
    "Ip6InMcastPkts",
    "Ip6InNoECTPkts",
    "Ip6InOctets",
    "Ip6InReceives",
    "Ip6OutForwDatagrams",
    "Ip6OutMcastOctets",
    "Ip6OutMcastPkts",
    "Ip6OutOctets",
    "Ip6OutRequests",
    "Ip6OutTransmits",
    "OutForwDatagrams",
    "OutOctets",
    "OutRequests",
    "OutSegs",
    "OutTransmits",
    "PassiveOpens",
    "TCPAutoCorking",
    "TCPDelivered",
    "TCPHPAcks",
    "TCPHPHits",
    "TCPHystartTrainDetect",
    "TCPOrigDataSent",
    "TCPPureAcks",
    "TW",
    "TcpTimeoutRehash",
];

/// The changes of a namespace's counters between two readings.
///
/// Displays as `ListenDrops +1, PAWSPassive +1`: the counters that moved, sorted, in
/// the kernel's spelling, with the group where the short name is ambiguous
/// (`Tcp.InCsumErrors +1`); `none` if none moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    deltas: Vec<(Name, i64)>,
}

impl Changes {
    /// The change of one counter, named as for [`Counters::get`]. `None` if this
    /// kernel has no such counter, `Some(0)` if it did not move.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        if let Some((group, short)) = name.split_once('.') {
            let same = self.deltas.iter().find(|(n, _)| n.short == short && *n.group == *group);
            return same.map(|(_, delta)| *delta);
        }
        let namesakes = self.deltas.iter().filter(|(n, _)| n.short == name);
        let place = |group: &str| PRECEDENCE.iter().position(|g| *g == group).unwrap_or(PRECEDENCE.len());
        namesakes.min_by_key(|(n, _)| (place(&n.group), &n.group)).map(|(_, delta)| *delta)
    }

    /// The counters that moved, sorted: the name as displayed, and the change.
    pub fn moved(&self) -> impl Iterator<Item = (String, i64)> {
        let mut moved: Vec<_> = self.deltas.iter().filter(|(_, delta)| *delta != 0).collect();
        moved.sort_unstable();
        moved.into_iter().map(|(name, delta)| (self.label(name), *delta))
    }

    /// The same without the counters that any traffic moves: numbers of packets,
    /// bytes and connections.
    #[must_use]
    pub fn telling(&self) -> Self {
        let deltas = self.deltas.iter().filter(|(name, _)| !TRAFFIC.contains(&name.short.as_str()));
        Self { deltas: deltas.cloned().collect() }
    }

    /// The short name, if it refers to this counter.
    fn label(&self, name: &Name) -> String {
        let namesakes = self.deltas.iter().filter(|(other, _)| other.short == name.short);
        if namesakes.count() > 1 { format!("{}.{}", name.group, name.short) } else { name.short.clone() }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved: Vec<_> = self.moved().map(|(name, delta)| format!("{name} {delta:+}")).collect();
        if moved.is_empty() { write!(f, "none") } else { write!(f, "{}", moved.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SNMP: &str = "\
Tcp: RtoAlgorithm RtoMin MaxConn RetransSegs InCsumErrors
Tcp: 1 200 -1 7 0
Udp: InDatagrams InCsumErrors
Udp: 5 2
";

    fn reading(paws_passive: u64, listen_drops: u64, snmp: &str) -> Counters {
        let netstat = format!(
            "TcpExt: SyncookiesSent PAWSPassive ListenDrops\nTcpExt: 4 {paws_passive} {listen_drops}\n\
             IpExt: InNoRoutes\nIpExt: 0\n"
        );
        Counters::parse(&netstat, snmp)
    }

    #[test]
    fn what_moved_is_displayed_sorted() {
        let changes = Counters::changes(&reading(1, 10, SNMP), &reading(2, 11, SNMP));
        assert_eq!(changes.to_string(), "ListenDrops +1, PAWSPassive +1");
        assert_eq!(changes.moved().count(), 2);
        assert_eq!(Changes::default().to_string(), "none");
    }

    #[test]
    fn unmoved_and_unknown_differ() {
        let changes = Counters::changes(&reading(1, 10, SNMP), &reading(2, 10, SNMP));
        assert_eq!(changes.get("PAWSPassive"), Some(1));
        assert_eq!(changes.get("TcpExt.ListenDrops"), Some(0));
        assert_eq!(changes.get("PAWSTimewait"), None);
        assert_eq!(changes.get("Ip.ListenDrops"), None);
    }

    #[test]
    fn namesakes_are_displayed_with_their_group() {
        let after = SNMP.replace("7 0", "8 3").replace("5 2", "5 1");
        let changes = Counters::changes(&reading(1, 1, SNMP), &reading(1, 1, &after));
        assert_eq!(changes.to_string(), "Tcp.InCsumErrors +3, Udp.InCsumErrors -1, RetransSegs +1");
        assert_eq!(changes.get("InCsumErrors"), Some(3));
    }

    #[test]
    fn a_column_that_appears_was_0() {
        let after = format!("{SNMP}IcmpMsg: OutType3\nIcmpMsg: 6\n");
        let changes = Counters::changes(&reading(1, 1, SNMP), &reading(1, 1, &after));
        assert_eq!(changes.to_string(), "OutType3 +6");
    }

    #[test]
    fn values_are_signed_or_64_bits() {
        let counters = reading(u64::MAX, 0, SNMP);
        assert_eq!(counters.get("MaxConn"), Some(-1));
        let changes = Counters::changes(&counters, &reading(1, 0, SNMP));
        assert_eq!(changes.get("PAWSPassive"), Some(2));
    }

    #[test]
    fn counters_of_ipv6_have_their_own_names() {
        let mut before = reading(1, 1, SNMP);
        before.add_ipv6("Ip6InNoRoutes   \t3\nlonely\nIp6InReceives 8\nOther 3\nUdp6InErrors x\n");
        let mut after = reading(1, 1, SNMP);
        after.add_ipv6("Ip6InNoRoutes 5\nIp6InReceives 9\n");
        let changes = Counters::changes(&before, &after);
        assert_eq!(changes.to_string(), "Ip6InNoRoutes +2, Ip6InReceives +1");
        assert_eq!(changes.telling().to_string(), "Ip6InNoRoutes +2");
        assert_eq!(changes.get("Ip6.Ip6InNoRoutes"), Some(2));
        assert_eq!((changes.get("InNoRoutes"), changes.get("Other")), (Some(0), None));
    }

    #[test]
    fn ragged_text_gives_what_it_has() {
        let ragged = "TcpExt: A B C\nTcpExt: 1 x\nlonely\nIpExt: D\nTcpExt: E\nTcpExt: 5 6\n";
        let counters = Counters::parse(ragged, "");
        assert_eq!((counters.get("A"), counters.get("B"), counters.get("C")), (Some(1), None, None));
        assert_eq!((counters.get("D"), counters.get("E")), (None, Some(5)));
    }

    proptest! {
        #[test]
        fn no_text_panics(netstat in "([A-C:]{0,3}[ \n0-9-]{0,4}){0,20}", snmp in any::<String>()) {
            let counters = Counters::parse(&netstat, &snmp);
            let _ = Counters::changes(&Counters::default(), &counters).to_string();
            let _ = Counters::changes(&counters, &Counters::default()).to_string();
        }
    }
}
