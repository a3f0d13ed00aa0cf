//! The sysctls that are pinned in every node.

use std::fmt;

use super::net::Family;

/// A kernel setting pinned in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The key, for example `net.ipv4.tcp_timestamps`.
    pub key: String,
    /// The value as sysctl prints it.
    pub value: String,
    /// Whether the kernel may lack the key.
    pub optional: bool,
}

/// The values for every host, so that a distribution's defaults cannot change an
/// outcome. A kernel that lacks a key behaves as if it had this value.
pub(super) const PINS: [(&str, &str); 14] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.tcp_congestion_control", "reno"),
    ("net.ipv4.tcp_ecn", "0"),
    ("net.ipv4.tcp_sack", "1"),
    // No more in flight than a wire's ring holds, however late this process runs.
    ("net.ipv4.tcp_rmem", "4096 131072 2097152"),
    ("net.ipv4.tcp_timestamps", "1"),
    ("net.ipv4.tcp_syn_retries", "6"),
    ("net.ipv4.tcp_retries2", "15"),
    ("net.ipv4.tcp_tw_reuse", "0"),
    // Up to 4.11; global to the kernel up to 4.10.
    ("net.ipv4.tcp_tw_recycle", "0"),
    ("net.ipv4.tcp_fin_timeout", "60"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

/// Further values for a host with an IPv6 address: its addresses are usable at
/// once, it does not look for routers, and it reports its multicast groups
/// without a random delay. IPv6 itself is enabled on each interface that has an
/// address; `default` stays off.
pub(super) const IPV6_PINS: [(&str, &str); 11] = [
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.autoconf", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.use_tempaddr", "0"),
    // In milliseconds. No setting switches the reports off.
    ("net.ipv6.conf.default.mldv1_unsolicited_report_interval", "1"),
    ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1"),
    ("net.ipv6.bindv6only", "0"),
];

/// The forwarding sysctls of a router. Drawings omit them.
pub(super) const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// The sysctls that disable IPv6, for bridges and the wires' namespace: with IPv6
/// they would send neighbour discovery.
pub(crate) fn no_ipv6() -> Vec<Sysctl> {
    pins(&PINS[..2])
}

pub(super) fn forwarding(family: Family) -> Sysctl {
    let [v4, v6] = FORWARDING;
    let key = if family == Family::V4 { v4 } else { v6 };
    Sysctl { key: key.into(), value: "1".into(), optional: false }
}

pub(super) fn pins(pins: &[(&str, &str)]) -> Vec<Sysctl> {
    let pin = |&(key, value): &(&str, &str)| Sysctl { key: key.into(), value: value.into(), optional: true };
    pins.iter().map(pin).collect()
}

/// Sets the value of a sysctl, in its old position if it had one.
pub(super) fn pin<'a>(sysctls: &'a mut Vec<Sysctl>, key: &str, value: impl fmt::Display) -> &'a mut Sysctl {
    let at = sysctls.iter().position(|s| s.key == key).unwrap_or_else(|| {
        sysctls.push(Sysctl { key: key.into(), value: String::new(), optional: false });
        sysctls.len() - 1
    });
    sysctls[at].value = value.to_string();
    &mut sysctls[at]
}
