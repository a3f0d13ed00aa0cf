//! The control bits of a TCP header, RFC 9293 3.1.

use std::fmt;
use std::ops::BitOr;

/// The control bits of a TCP header, CWR to FIN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// The usual FIN.
    pub const FIN_ACK: Self = Self(Self::FIN.0 | Self::ACK.0);
    /// The answer to a SYN.
    pub const SYN_ACK: Self = Self(Self::SYN.0 | Self::ACK.0);
    /// The RST of a socket that is reset.
    pub const RST_ACK: Self = Self(Self::RST.0 | Self::ACK.0);

    /// The flags in the 14th byte of a header.
    #[must_use]
    pub const fn of(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits of the header's 14th byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this requests a connection: SYN without ACK, FIN or RST.
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::FIN.0 | Self::RST.0) == Self::SYN.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        // From FIN to CWR, as tcp_flag_values of print-tcp.c.
        for (bit, letter) in "FSRP.UEW".chars().enumerate() {
            if self.0 & (1 << bit) != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}
