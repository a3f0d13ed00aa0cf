//! The conditions under which a rule applies to a packet.

use std::fmt;
use std::net::IpAddr;
use std::ops::{BitOr, RangeInclusive};

use crate::tcp_flags::Flags as TcpFlags;
use crate::topology::net::{Family, Net};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// ICMP, 1.
    Icmp,
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// ICMP for IPv6, 58.
    Icmpv6,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
        }
    }

    /// The family it belongs to, if there is only one.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Icmp => Some(Family::V4),
            Self::Icmpv6 => Some(Family::V6),
            Self::Tcp | Self::Udp => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmpv6 => "ipv6-icmp",
        })
    }
}

/// The addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Net);

impl Prefix {
    /// The addresses that share the first `length` bits of `address`.
    ///
    /// # Panics
    /// If `length` is more than the address has.
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        let net = Net::new(address, length);
        Self(Net::new(net.network(), length))
    }

    /// Its family.
    #[must_use]
    pub fn family(self) -> Family {
        self.0.family()
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// The prefix length as a netmask; 255.255.255.255 for a single address.
    #[must_use]
    pub fn netmask(self) -> IpAddr {
        self.0.netmask()
    }

    /// Whether it covers a single address only.
    #[must_use]
    pub fn is_one_address(self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// This prefix in a family, see [`Family::net`].
    #[must_use]
    pub(crate) fn of_family(self, family: Family) -> Self {
        Self(family.net(self.0))
    }
}

impl<A: Into<IpAddr>> From<A> for Prefix {
    fn from(address: A) -> Self {
        let address = address.into();
        Self::new(address, Family::of(address).bits())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one_address() { self.address().fmt(f) } else { self.0.fmt(f) }
    }
}

/// A port, or an inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl From<RangeInclusive<u16>> for Ports {
    fn from(ports: RangeInclusive<u16>) -> Self {
        Self { first: *ports.start(), last: *ports.end() }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// A set of conntrack states, as `ct state` matches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CtState(u32);

// include/uapi/linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT.
impl CtState {
    /// conntrack could not classify the packet.
    pub const INVALID: Self = Self(1);
    /// Packets were seen in both directions.
    pub const ESTABLISHED: Self = Self(2);
    /// A new flow that belongs to another one, or an ICMP error about one.
    pub const RELATED: Self = Self(4);
    /// The first packets of a flow.
    pub const NEW: Self = Self(8);
    /// Hidden from conntrack.
    pub const UNTRACKED: Self = Self(64);

    const NAMES: [(Self, &str); 5] = [
        (Self::INVALID, "invalid"),
        (Self::ESTABLISHED, "established"),
        (Self::RELATED, "related"),
        (Self::NEW, "new"),
        (Self::UNTRACKED, "untracked"),
    ];

    /// The kernel's bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for CtState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(state, _)| self.0 & state.0 != 0);
        write_joined(f, names.map(|(_, name)| *name))
    }
}

/// The flags in nft's format: `syn,ack`.
struct Named(TcpFlags);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(TcpFlags, &str); 8] = [
            (TcpFlags::FIN, "fin"),
            (TcpFlags::SYN, "syn"),
            (TcpFlags::RST, "rst"),
            (TcpFlags::PSH, "psh"),
            (TcpFlags::ACK, "ack"),
            (TcpFlags::URG, "urg"),
            (TcpFlags::ECE, "ecn"),
            (TcpFlags::CWR, "cwr"),
        ];
        let names = NAMES.iter().filter(|(flag, _)| self.0.contains(*flag));
        write_joined(f, names.map(|(_, name)| *name))
    }
}

fn write_joined<'a>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    for (i, name) in names.enumerate() {
        write!(f, "{}{name}", if i > 0 { "," } else { "" })?;
    }
    Ok(())
}

/// The conditions of a rule; all that are set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The name of the input device.
    pub in_device: Option<String>,
    /// The name of the output device.
    pub out_device: Option<String>,
    /// Its source address.
    pub source: Option<Prefix>,
    /// Its destination address.
    pub destination: Option<Prefix>,
    /// Its transport protocol.
    pub protocol: Option<Protocol>,
    /// Its source port.
    pub source_port: Option<Ports>,
    /// Its destination port.
    pub destination_port: Option<Ports>,
    /// Of its TCP flags, those in `.0` must equal `.1`.
    pub tcp_flags: Option<(TcpFlags, TcpFlags)>,
    /// Its conntrack state is one of these.
    pub ct_state: Option<CtState>,
    /// Every Nth packet that all other matches accept, beginning with the first.
    pub one_in: Option<u32>,
}

impl fmt::Display for Matches {
    /// Every match, each followed by a space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.in_device {
            write!(f, "iifname \"{device}\" ")?;
        }
        if let Some(device) = &self.out_device {
            write!(f, "oifname \"{device}\" ")?;
        }
        let ip = |prefix: &Prefix| match prefix.family() {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        if let Some(source) = &self.source {
            write!(f, "{} saddr {source} ", ip(source))?;
        }
        if let Some(destination) = &self.destination {
            write!(f, "{} daddr {destination} ", ip(destination))?;
        }
        let transport = match self.protocol {
            Some(protocol) => protocol.to_string(),
            None => "th".to_owned(),
        };
        let beyond =
            self.source_port.is_some() || self.destination_port.is_some() || self.tcp_flags.is_some();
        if self.protocol.is_some() && !beyond {
            write!(f, "meta l4proto {transport} ")?;
        }
        if let Some(ports) = &self.source_port {
            write!(f, "{transport} sport {ports} ")?;
        }
        if let Some(ports) = &self.destination_port {
            write!(f, "{transport} dport {ports} ")?;
        }
        if let Some((mask, value)) = &self.tcp_flags {
            let (one, mask, value) = (mask.bits().is_power_of_two(), Named(*mask), Named(*value));
            // nft 1.0.6 prints a single flag like this, and several like that.
            if one {
                write!(f, "tcp flags & {mask} == {value} ")?;
            } else {
                write!(f, "tcp flags {value} / {mask} ")?;
            }
        }
        if let Some(states) = &self.ct_state {
            write!(f, "ct state {states} ")?;
        }
        if let Some(modulus) = self.one_in {
            write!(f, "numgen inc mod {modulus} 0 ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_its_addresses() {
        assert_eq!(Prefix::new([10, 1, 2, 3], 9).to_string(), "10.0.0.0/9");
        assert_eq!(Prefix::new([10, 1, 2, 3], 0).netmask(), Family::V4.unspecified());
        assert_eq!(Prefix::from([10, 1, 2, 3]).to_string(), "10.1.2.3");
        let v6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
        assert_eq!(Prefix::new(v6, 32).to_string(), "2001:db8::/32");
        assert_eq!(Prefix::from(v6).to_string(), "2001:db8::1");
    }
}
