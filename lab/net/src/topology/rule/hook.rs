//! Where in the stack a rule is evaluated.

use std::fmt;

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
