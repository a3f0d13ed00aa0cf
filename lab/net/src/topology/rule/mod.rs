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

mod matches;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use self::matches::{CtState, Matches, Ports, Prefix, Protocol};
pub use crate::tcp_flags::Flags as TcpFlags;
use crate::topology::net::Family;

/// The longest name of a rule in bytes: nft prints comments up to this length.
/// libnftnl/udata.h: NFTNL_UDATA_COMMENT_MAXLEN, 128 with its NUL.
pub const NAME_MAX: usize = 127;

/// The point in the stack where a rule is evaluated. Each hook has one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Incoming packets, before conntrack.
    RawPrerouting,
    /// Locally generated packets, before conntrack.
    RawOutput,
    /// Destination NAT of incoming packets.
    NatPrerouting,
    /// Source NAT of locally delivered packets.
    NatInput,
    /// Destination NAT of locally generated packets.
    NatOutput,
    /// Source NAT of outgoing packets.
    NatPostrouting,
    /// Locally delivered packets.
    Input,
    /// Forwarded packets.
    Forward,
    /// Locally generated packets.
    Output,
}

impl Hook {
    /// The name of the hook's chain.
    #[must_use]
    pub fn chain(self) -> &'static str {
        match self {
            Self::RawPrerouting => "raw-prerouting",
            Self::RawOutput => "raw-output",
            Self::NatPrerouting => "nat-prerouting",
            Self::NatInput => "nat-input",
            Self::NatOutput => "nat-output",
            Self::NatPostrouting => "nat-postrouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }

    /// The chain's priority. include/uapi/linux/netfilter_ipv4.h: enum nf_ip_hook_priorities.
    #[must_use]
    pub fn priority(self) -> i32 {
        match self {
            Self::RawPrerouting | Self::RawOutput => -300,
            Self::NatPrerouting | Self::NatOutput => -100,
            Self::Input | Self::Forward | Self::Output => 0,
            Self::NatInput | Self::NatPostrouting => 100,
        }
    }

    /// Whether the chain is of type nat: only the first packet of a flow
    /// traverses it.
    #[must_use]
    pub fn is_nat(self) -> bool {
        matches!(self, Self::NatPrerouting | Self::NatInput | Self::NatOutput | Self::NatPostrouting)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.chain())
    }
}

/// How NAT chooses a source port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// Keep the port if it is free, or else take the next free one.
    #[default]
    Keep,
    /// Start from a keyed hash of the flow: `random`.
    Random,
    /// Start from a random number: `fully-random`. iptables: `--random-fully`.
    FullyRandom,
}

/// What a rule does with matching packets, after counting them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Lets the packet go on to the next hook.
    Accept,
    /// Drops the packet.
    Drop,
    /// Drops the packet, and answers that its port is unreachable, by ICMP or
    /// ICMPv6.
    Reject,
    /// Nothing: evaluation continues with the next rule.
    Count,
    /// Hides the packet from conntrack.
    Notrack,
    /// Lowers the MSS option of a SYN to what fits the MTUs of the routes in both
    /// directions, if it is larger.
    ClampMss,
    /// Rewrites the source of the flow.
    SourceNat {
        /// The new address; `None` for the output device's own (masquerade).
        to: Option<IpAddr>,
        /// The ports to choose from.
        ports: Option<Ports>,
        /// How to choose.
        choice: Choice,
    },
    /// Rewrites the destination of the flow.
    DestinationNat {
        /// The new address.
        to: IpAddr,
        /// The new port.
        port: u16,
    },
}

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

    /// Only the first of every `number` packets that all other matches let through, as
    /// a load balancer chooses a backend. Linux 4.10 and later.
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

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str(" accept"),
            Self::Drop => f.write_str(" drop"),
            Self::Reject => f.write_str(" reject"),
            Self::Count => Ok(()),
            Self::Notrack => f.write_str(" notrack"),
            Self::ClampMss => f.write_str(" tcp option maxseg size set rt mtu"),
            Self::SourceNat { to, ports, choice } => {
                match (to, ports) {
                    (Some(IpAddr::V6(to)), Some(ports)) => write!(f, " snat to [{to}]:{ports}")?,
                    (Some(to), Some(ports)) => write!(f, " snat to {to}:{ports}")?,
                    (Some(to), None) => write!(f, " snat to {to}")?,
                    (None, Some(ports)) => write!(f, " masquerade to :{ports}")?,
                    (None, None) => f.write_str(" masquerade")?,
                }
                match choice {
                    Choice::Keep => Ok(()),
                    Choice::Random => f.write_str(" random"),
                    Choice::FullyRandom => f.write_str(" fully-random"),
                }
            }
            Self::DestinationNat { to, port } => write!(f, " dnat to {}", SocketAddr::new(*to, *port)),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}counter{}", self.matches, self.action)
    }
}
