//! What a scenario needs of the kernel or of the privileges.

use std::fmt;

/// What a scenario asks of the kernel or of the privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Virtual Ethernet pairs.
    Veth,
    /// Source or destination NAT by nf_tables.
    Nat,
    /// The same over IPv6.
    Ipv6,
    /// Entries and events of conntrack.
    Conntrack,
    /// Frames through this process.
    PacketSocket,
    /// The qdisc `tbf`.
    TokenBucket,
    /// The qdisc `netem`.
    Netem,
    /// A page of memory that a program answers for.
    Userfaultfd,
    /// The kernel log, if it can be read; else a row says that it cannot.
    KernelLog,
    /// A kernel that nothing else runs on.
    OwnKernel,
}

impl Need {
    /// The kernel's CONFIG names behind it.
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
            Self::OwnKernel => "a virtual machine",
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
            Self::OwnKernel => "a kernel of its own",
        })
    }
}
