//! The timestamps option of a segment, and how to overwrite it in a frame.
//!
//! - RFC 7323 3.2, the option; RFC 1624, updating a checksum without the rest of
//!   the packet

use super::place::{Place, TIMESTAMPS, be16};

/// The offset of the checksum in a TCP header, RFC 9293 3.1.
pub(super) const CHECKSUM: usize = 16;

/// The timestamps option.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timestamps {
    /// The sender's clock, in its ticks.
    pub tsval: u32,
    /// The receiver's clock as the sender last received it; significant with ACK.
    pub tsecr: u32,
}

/// Overwrites the timestamps option of the segment in `frame` with `to`, and
/// updates the checksum: a valid one stays valid, an invalid one invalid.
///
/// Returns `false`, and changes nothing, if there is no such option.
pub fn set_timestamps(frame: &mut [u8], to: Timestamps) -> bool {
    let Some(Place { tcp, timestamps: Some(at), .. }) = Place::of(frame) else { return false };
    let mut value = [0; 8];
    value[..4].copy_from_slice(&to.tsval.to_be_bytes());
    value[4..].copy_from_slice(&to.tsecr.to_be_bytes());
    write(frame, tcp.start, at, &value);
    true
}

/// Overwrites the timestamps option with no-operations and updates the checksum,
/// as if the host did not use the option.
pub fn remove_timestamps(frame: &mut [u8]) -> bool {
    /// RFC 9293 3.1: the option of kind 1.
    const NO_OPERATION: [u8; 10] = [1; 10];
    let Some(Place { tcp, timestamps: Some(at), .. }) = Place::of(frame) else { return false };
    write(frame, tcp.start, at - TIMESTAMPS.len(), &NO_OPERATION);
    true
}

/// Writes an even number of bytes into the TCP header at `tcp`, and updates the
/// checksum.
fn write(frame: &mut [u8], tcp: usize, at: usize, bytes: &[u8]) {
    // The checksum counts 16-bit words from the start of the header, whose
    // length is a multiple of four; an option may start at an odd byte.
    let offset = at - tcp;
    let words = tcp + (offset & !1)..tcp + ((offset + bytes.len() + 1) & !1);
    // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    let mut sum = u32::from(!be16(frame, tcp + CHECKSUM));
    sum += words.clone().step_by(2).map(|word| u32::from(!be16(frame, word))).sum::<u32>();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    sum += words.step_by(2).map(|word| u32::from(be16(frame, word))).sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, checksum @ ..] = (!sum).to_be_bytes();
    frame[tcp + CHECKSUM..][..2].copy_from_slice(&checksum);
}
