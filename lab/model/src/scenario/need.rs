//! Kernel features and privileges that a scenario requires.

use std::fmt;

/// A kernel feature or privilege that a scenario requires. Without it the scenario is not
/// applicable, unless stated otherwise below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Virtual Ethernet devices, veth(4).
    Veth,
    /// Source or destination NAT with nf_tables.
    Nat,
    /// NAT of IPv6 with nf_tables. A scenario needs it only with IPv6 addresses, and then
    /// reports itself that it is missing.
    Ipv6,
    /// Conntrack, with its entries and events over ctnetlink.
    Conntrack,
    /// Packet sockets, packet(7), with which a wire carries frames through this process.
    PacketSocket,
    /// The qdisc `tbf`.
    TokenBucket,
    /// The qdisc `netem`.
    Netem,
    /// userfaultfd(2): page faults that a process handles.
    Userfaultfd,
    /// The kernel log. Without it the scenario runs, but the rows that depend on the log
    /// cannot be observed.
    KernelLog,
    /// A kernel that runs nothing but faultlab: that of a guest.
    ExclusiveKernel,
}

impl Need {
    /// The kernel's CONFIG options that provide it.
    #[must_use]
    pub const fn config(self) -> &'static str {
        match self {
            Self::Veth => "CONFIG_VETH",
            Self::Nat => "CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
            Self::Ipv6 => {
                "CONFIG_IPV6, CONFIG_NF_TABLES_IPV6; before Linux 5.1 CONFIG_NFT_CHAIN_NAT_IPV6, CONFIG_NFT_MASQ_IPV6"
            }
            Self::Conntrack => "CONFIG_NF_CONNTRACK, CONFIG_NF_CT_NETLINK",
            Self::PacketSocket => "CONFIG_PACKET",
            Self::TokenBucket => "CONFIG_NET_SCH_TBF",
            Self::Netem => "CONFIG_NET_SCH_NETEM",
            Self::Userfaultfd => "CONFIG_USERFAULTFD",
            Self::KernelLog => "CONFIG_PRINTK",
            Self::ExclusiveKernel => "a virtual machine",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Nat => "nf_tables NAT",
            Self::Ipv6 => "IPv6 with nf_tables NAT",
            Self::Conntrack => "conntrack",
            Self::PacketSocket => "packet socket",
            Self::TokenBucket => "tbf",
            Self::Netem => "netem",
            Self::Userfaultfd => "userfaultfd",
            Self::KernelLog => "kernel log (optional)",
            Self::ExclusiveKernel => "a kernel of its own",
        })
    }
}
