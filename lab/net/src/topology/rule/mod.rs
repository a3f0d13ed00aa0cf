//! nf_tables rules as values.
//!
//! A rule has a name, a hook, matches and an action. Every rule counts packets
//! and bytes. It is displayed as `nft list ruleset` prints it, without the values
//! of its counter.
//!
//! ```
//! use faultlab_net::topology::rule::{CtState, Hook, Rule};
//!
//! let rule = Rule::drop("invalid").on(Hook::Forward).ct_state(CtState::INVALID);
//! assert_eq!(rule.to_string(), "ct state invalid counter drop");
//!
//! let nat = Rule::source_nat("nat", [192, 0, 2, 1]).to_ports(40000..=40003).out("wan");
//! assert_eq!(nat.to_string(), r#"oifname "wan" counter snat to 192.0.2.1:40000-40003"#);
//! ```

mod action;
mod hook;
mod matches;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use self::action::{Action, Choice};
pub use self::hook::Hook;
pub use self::matches::{CtState, Matches, Ports, Prefix, Protocol};
pub use crate::tcp_flags::Flags as TcpFlags;
use crate::topology::net::Family;

/// The longest name of a rule in bytes: nft prints comments up to this length.
/// libnftnl/udata.h: NFTNL_UDATA_COMMENT_MAXLEN, 128 with its NUL.
pub const NAME_MAX: usize = 127;

/// A firewall rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    name: String,
    hook: Hook,
    matches: Matches,
    action: Action,
}

impl Rule {
    fn new(name: impl Into<String>, hook: Hook, action: Action) -> Self {
        Self { name: name.into(), hook, matches: Matches::default(), action }
    }

    /// A rule in forward that accepts.
    pub fn accept(name: impl Into<String>) -> Self {
        Self::new(name, Hook::Forward, Action::Accept)
    }

    /// A rule in forward that drops.
    pub fn drop(name: impl Into<String>) -> Self {
        Self::new(name, Hook::Forward, Action::Drop)
    }

    /// A rule in forward that drops, and answers with a port unreachable, as
    /// `reject` of nft and iptables do by default.
    pub fn reject(name: impl Into<String>) -> Self {
        Self::new(name, Hook::Forward, Action::Reject)
    }

    /// A rule in forward that only counts.
    pub fn count(name: impl Into<String>) -> Self {
        Self::new(name, Hook::Forward, Action::Count)
    }

    /// A rule in raw prerouting that hides packets from conntrack. Linux 4.10
    /// and later (254432613c58).
    pub fn notrack(name: impl Into<String>) -> Self {
        Self::new(name, Hook::RawPrerouting, Action::Notrack)
    }

    /// A rule in forward that lowers the MSS option of SYNs and SYN-ACKs to what
    /// fits the routes of this host (iptables: `TCPMSS --clamp-mss-to-pmtu`). Linux
    /// 4.14 and later.
    pub fn clamp_mss(name: impl Into<String>) -> Self {
        Self::new(name, Hook::Forward, Action::ClampMss).tcp_flags(TcpFlags::SYN)
    }

    /// A rule in nat postrouting that rewrites the source of flows to `to`.
    pub fn source_nat(name: impl Into<String>, to: impl Into<IpAddr>) -> Self {
        let action = Action::SourceNat { to: Some(to.into()), ports: None, choice: Choice::Keep };
        Self::new(name, Hook::NatPostrouting, action)
    }

    /// A rule in nat postrouting: flows that leave through `device` get its
    /// address.
    ///
    /// The device is not optional: an unconditional masquerade black-holes what a
    /// host sends to itself over lo.
    pub fn masquerade(name: impl Into<String>, device: impl Into<String>) -> Self {
        let action = Action::SourceNat { to: None, ports: None, choice: Choice::Keep };
        Self::new(name, Hook::NatPostrouting, action).out(device)
    }

    /// A rule in nat prerouting that redirects TCP flows from `service` to
    /// `backend`. [`udp`](Self::udp) makes it UDP flows.
    pub fn destination_nat(
        name: impl Into<String>,
        service: (impl Into<IpAddr>, u16),
        backend: (impl Into<IpAddr>, u16),
    ) -> Self {
        let action = Action::DestinationNat { to: backend.0.into(), port: backend.1 };
        Self::new(name, Hook::NatPrerouting, action)
            .destination(service.0.into())
            .tcp()
            .destination_port(service.1)
    }

    /// Moves the rule to another hook.
    #[must_use]
    pub fn on(mut self, hook: Hook) -> Self {
        self.hook = hook;
        self
    }

    /// Only packets that arrive on `device`.
    #[must_use]
    pub fn r#in(mut self, device: impl Into<String>) -> Self {
        self.matches.in_device = Some(device.into());
        self
    }

    /// Only packets that leave through `device`.
    #[must_use]
    pub fn out(mut self, device: impl Into<String>) -> Self {
        self.matches.out_device = Some(device.into());
        self
    }

    /// Only packets from an address or a [`Prefix`].
    #[must_use]
    pub fn source(mut self, source: impl Into<Prefix>) -> Self {
        self.matches.source = Some(source.into());
        self
    }

    /// Only packets to an address or a [`Prefix`].
    #[must_use]
    pub fn destination(mut self, destination: impl Into<Prefix>) -> Self {
        self.matches.destination = Some(destination.into());
        self
    }

    /// Only TCP.
    #[must_use]
    pub fn tcp(self) -> Self {
        self.protocol(Protocol::Tcp)
    }

    /// Only UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        self.protocol(Protocol::Udp)
    }

    /// Only ICMP.
    #[must_use]
    pub fn icmp(self) -> Self {
        self.protocol(Protocol::Icmp)
    }

    /// Only ICMPv6.
    #[must_use]
    pub fn icmpv6(self) -> Self {
        self.protocol(Protocol::Icmpv6)
    }

    fn protocol(mut self, protocol: Protocol) -> Self {
        self.matches.protocol = Some(protocol);
        self
    }

    /// Only from a port or a range of ports; of any transport protocol unless one
    /// is set.
    #[must_use]
    pub fn source_port(mut self, ports: impl Into<Ports>) -> Self {
        self.matches.source_port = Some(ports.into());
        self
    }

    /// Only to a port or a range of ports; of any transport protocol unless one
    /// is set.
    #[must_use]
    pub fn destination_port(mut self, ports: impl Into<Ports>) -> Self {
        self.matches.destination_port = Some(ports.into());
        self
    }

    /// Only TCP segments that have all of `flags`.
    #[must_use]
    pub fn tcp_flags(self, flags: TcpFlags) -> Self {
        self.tcp_flags_of(flags, flags)
    }

    /// Only TCP segments whose flags in `mask` are exactly those in `value`.
    #[must_use]
    pub fn tcp_flags_of(mut self, mask: TcpFlags, value: TcpFlags) -> Self {
        self.matches.tcp_flags = Some((mask, value));
        self.tcp()
    }

    /// Only packets in one of these conntrack `states`.
    #[must_use]
    pub fn ct_state(mut self, states: CtState) -> Self {
        self.matches.ct_state = Some(states);
        self
    }

    /// Matches every `number`th packet that all other matches accept, beginning with the
    /// first, as a load balancer chooses a backend. Linux 4.10 and later.
    #[must_use]
    pub fn one_in(mut self, number: u32) -> Self {
        self.matches.one_in = Some(number);
        self
    }

    /// Makes source NAT choose among these ports. Kernels without 8a6bf5da1aef
    /// (4.4) ignore it in a masquerade.
    ///
    /// # Panics
    /// If the rule is not a source NAT.
    #[must_use]
    pub fn to_ports(mut self, range: impl Into<Ports>) -> Self {
        match &mut self.action {
            Action::SourceNat { ports, .. } => *ports = Some(range.into()),
            _ => panic!("rule {} has no source port to choose", self.name),
        }
        self
    }

    /// Sets how source NAT chooses ports.
    ///
    /// # Panics
    /// If the rule is not a source NAT.
    #[must_use]
    pub fn choose(mut self, how: Choice) -> Self {
        match &mut self.action {
            Action::SourceNat { choice, .. } => *choice = how,
            _ => panic!("rule {} has no source port to choose", self.name),
        }
        self
    }

    /// The name, unique in its firewall.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hook at which it is evaluated.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Its matches.
    #[must_use]
    pub fn matches(&self) -> &Matches {
        &self.matches
    }

    /// Its action.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// The family that the rule names, by an address or by ICMP. A rule that
    /// names none applies to every family of its host.
    ///
    /// # Panics
    /// If it names both: no packet belongs to both.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        let Matches { source, destination, protocol, .. } = &self.matches;
        let translated = match &self.action {
            Action::SourceNat { to, .. } => *to,
            Action::DestinationNat { to, .. } => Some(*to),
            Action::Accept
            | Action::Drop
            | Action::Reject
            | Action::Count
            | Action::Notrack
            | Action::ClampMss => None,
        };
        let prefixes = source.iter().chain(destination).map(|prefix| prefix.family());
        let protocol = protocol.and_then(Protocol::family);
        let mut named = prefixes.chain(protocol).chain(translated.map(Family::of));
        let first = named.next();
        assert!(named.all(|other| Some(other) == first), "rule {} names two address families", self.name);
        first
    }

    /// The same rule with its addresses, and ICMP, mapped to a family: see
    /// [`Family::address`].
    #[must_use]
    pub(crate) fn of_family(mut self, family: Family) -> Self {
        let Matches { source, destination, protocol, .. } = &mut self.matches;
        for prefix in source.iter_mut().chain(destination) {
            *prefix = prefix.of_family(family);
        }
        if (family, *protocol) == (Family::V6, Some(Protocol::Icmp)) {
            *protocol = Some(Protocol::Icmpv6);
        }
        match &mut self.action {
            Action::SourceNat { to: Some(to), .. } | Action::DestinationNat { to, .. } => {
                *to = family.address(*to);
            }
            _ => {}
        }
        self
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}counter{}", self.matches, self.action)
    }
}
