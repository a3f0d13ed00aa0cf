//! What a rule does with a packet that matches.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::matches::Ports;

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
