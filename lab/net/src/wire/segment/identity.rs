//! What identifies a segment: the one definition for captures, wires, drops and
//! explanations.
//!
//! Routers and NAT change a segment's addresses and ports, but not its numbers. A
//! wire may change its options. A retransmission has the same numbers as the
//! original; only its time differs.

use std::net::SocketAddr;

use super::{Flags, Header};

/// What stays the same on a segment's whole path, translated or not.
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

/// What identifies a segment in one place: its numbers, and its addresses and
/// ports there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
    /// What translation leaves unchanged.
    pub numbers: Numbers,
}

impl Header {
    /// The numbers of the segment with these headers and `length` bytes of
    /// payload.
    #[must_use]
    pub fn numbers(&self, length: usize) -> Numbers {
        Numbers { seq: self.seq, ack: self.ack, flags: self.flags, length }
    }

    /// The identity of the segment with these headers and `length` bytes of
    /// payload.
    #[must_use]
    pub fn identity(&self, length: usize) -> Identity {
        Identity { src: self.src, dst: self.dst, numbers: self.numbers(length) }
    }
}
