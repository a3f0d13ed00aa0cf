//! Addresses with prefixes, and the two address families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use ipnet::IpNet;

/// An address family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// The prefix that IPv4 addresses are mapped into: the documentation prefix (RFC
/// 3849), with the IPv4 address in the last 32 bits.
const EMBEDDED: u128 = 0x2001_0db8 << 96;

impl Family {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The length of its addresses, in bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The unspecified address: 0.0.0.0 or ::.
    #[must_use]
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Maps this address to the family: `10.0.1.2` is `2001:db8::a00:102` in
    /// IPv6. An IPv6 address is unchanged.
    #[must_use]
    pub fn address(self, address: impl Into<IpAddr>) -> IpAddr {
        match (self, address.into()) {
            (Self::V6, IpAddr::V4(v4)) if v4.is_unspecified() => self.unspecified(),
            (Self::V6, IpAddr::V4(v4)) => Ipv6Addr::from_bits(EMBEDDED | u128::from(v4.to_bits())).into(),
            (_, address) => address,
        }
    }

    /// Maps this address and port to the family, as [`address`](Self::address)
    /// does.
    #[must_use]
    pub fn socket(self, (address, port): (impl Into<IpAddr>, u16)) -> SocketAddr {
        (self.address(address), port).into()
    }

    /// Maps this prefix to the family: `10.0.1.0/24` is `2001:db8::a00:100/120`
    /// in IPv6, and the default route remains the default route.
    #[must_use]
    pub fn net(self, net: Net) -> Net {
        match (self, *net) {
            (Self::V6, IpNet::V4(v4)) => {
                let length = if v4.prefix_len() == 0 { 0 } else { 96 + v4.prefix_len() };
                Net::new(self.address(v4.addr()), length)
            }
            _ => net,
        }
    }
}

/// Reads `ipv4` or `ipv6`.
impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ipv4" => Ok(Self::V4),
            "ipv6" => Ok(Self::V6),
            _ => Err(format!("{text:?} is no address family; it is ipv4 or ipv6")),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// An address with the length of its prefix, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net(IpNet);

impl Net {
    /// An address with a prefix length.
    ///
    /// # Panics
    /// If the prefix is longer than the address.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Self {
        let address = address.into();
        Self(IpNet::new(address, prefix).unwrap_or_else(|_| panic!("{address} has no {prefix} bits")))
    }

    /// Reads `10.0.0.1/24` or `2001:db8::1/64`.
    ///
    /// # Panics
    /// If the text is not an address with a prefix length: topologies are part of
    /// the source, so this is a bug in the source.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.parse().unwrap_or_else(|_| panic!("{text:?} is not an address with a prefix length")))
    }

    /// Its family.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.addr())
    }

    /// Whether it covers every address of its family, like a default route.
    #[must_use]
    pub fn is_everything(self) -> bool {
        self.prefix_len() == 0
    }

    /// The addresses after this one, as many as fit into the prefix.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let room = u128::MAX >> (128 - self.max_prefix_len());
        let room = room.checked_shr(self.prefix_len().into()).unwrap_or(0);
        (1..=room).map_while(move |n| match self.addr() {
            IpAddr::V4(v4) => {
                let n = u32::try_from(n).ok()?;
                v4.to_bits().checked_add(n).map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(v6) => v6.to_bits().checked_add(n).map(|bits| Ipv6Addr::from_bits(bits).into()),
        })
    }
}

impl Deref for Net {
    type Target = IpNet;

    fn deref(&self) -> &IpNet {
        &self.0
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_has_the_addresses_that_its_prefix_leaves_room_for() {
        let first = |text| Net::parse(text).addresses().take(3).map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(first("10.0.0.0/30"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(first("2001:db8::/126"), ["2001:db8::1", "2001:db8::2", "2001:db8::3"]);
        assert_eq!(first("255.255.255.255/0").len(), 0);
        assert_eq!(first("10.0.0.1/32").len() + first("::/128").len(), 0);
        assert_eq!(first("::/0").len(), 3);
    }

    #[test]
    fn an_ipv4_address_has_its_place_in_ipv6() {
        assert_eq!(Family::V6.address([10, 0, 1, 2]).to_string(), "2001:db8::a00:102");
        assert_eq!(Family::V6.net(Net::parse("10.0.1.2/24")).to_string(), "2001:db8::a00:102/120");
        assert_eq!(Family::V6.net(Net::parse("0.0.0.0/0")).to_string(), "::/0");
        assert_eq!(Family::V6.socket(([10, 0, 1, 2], 80)).to_string(), "[2001:db8::a00:102]:80");
        assert_eq!(Family::V4.socket(([10, 0, 1, 2], 80)).to_string(), "10.0.1.2:80");
        for family in Family::BOTH {
            assert_eq!(family.to_string().parse(), Ok(family));
        }
        assert!("inet".parse::<Family>().is_err());
    }
}
