//! What tells segments apart: the one definition for captures, wires, drops
//! and explanations.
//!
//! A router and NAT leave the numbers of a segment as they are, and change its
//! addresses and ports. A wire may change its options. What is sent again has
//! the same numbers; only time tells it from the first.

use std::net::SocketAddr;

use super::{Flags, Header};

/// What stays the same of a segment on its whole way, translated or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// The control bits.
    pub flags: Flags,
    /// Bytes of payload.
    pub length: usize,
}

/// What tells a segment from others in one place: its numbers, and from whom
/// to whom it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
    /// What stays when the addresses are translated.
    pub numbers: Numbers,
}

impl Header {
    /// The numbers of the segment with these headers and so many bytes of payload.
    #[must_use]
    pub fn numbers(&self, length: usize) -> Numbers {
        Numbers { seq: self.seq, ack: self.ack, flags: self.flags, length }
    }

    /// The identity of the segment with these headers and so many bytes of payload.
    #[must_use]
    pub fn identity(&self, length: usize) -> Identity {
        Identity { src: self.src, dst: self.dst, numbers: self.numbers(length) }
    }
}
