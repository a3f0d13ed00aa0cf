//! Timestamp clocks set apart.

use std::time::Duration;

use super::{Frame, Out, Policy, Way};
use crate::wire::segment::{self, Flags, Timestamps};

/// Shifts the timestamp clock of the hosts behind one end, as the rest of the
/// network sees it. Both ends of a connection see a consistent story.
///
/// On kernels up to 4.9 all namespaces share one timestamp clock; this gives
/// one of them an uptime of its own.
#[derive(Clone, Copy, Debug)]
pub struct ShiftTimestampClock {
    sent: Way,
    ticks: u32,
}

impl ShiftTimestampClock {
    /// Sets the clock of those whose frames go the way `sent` forward by
    /// `ticks` of their TSval, modulo 2^32; `0_u32.wrapping_sub(n)` sets it back.
    #[must_use]
    pub fn new(sent: Way, ticks: u32) -> Self {
        Self { sent, ticks }
    }
}

impl Policy for ShiftTimestampClock {
    fn frame(&mut self, _now: Duration, mut frame: Frame, out: &mut Out) {
        let header = frame.segment().map(|segment| segment.header);
        if let Some((header, Timestamps { tsval, tsecr })) = header.and_then(|h| Some((h, h.timestamps?))) {
            let shifted = if frame.way == self.sent {
                Timestamps { tsval: tsval.wrapping_add(self.ticks), tsecr }
            } else if header.flags.contains(Flags::ACK) && tsecr != 0 {
                Timestamps { tsval, tsecr: tsecr.wrapping_sub(self.ticks) }
            } else {
                // RFC 7323 3.2: without ACK, TSecr is not valid.
                Timestamps { tsval, tsecr }
            };
            segment::set_timestamps(&mut frame.bytes, shifted);
        }
        out.pass(frame);
    }
}
