//! Hosts with different timestamp clocks, and hosts without timestamps.

use std::time::Duration;

use super::{Decisions, Direction, Frame, Policy};
use crate::wire::segment::{self, Flags, Timestamps};

/// Shifts the timestamp clock of the hosts behind one end, as the rest of the
/// network sees it. The view of each end of a connection stays consistent.
///
/// Up to Linux 4.9 all namespaces share one timestamp clock; this gives one of
/// them its own uptime.
#[derive(Clone, Copy, Debug)]
pub struct ShiftTimestampClock {
    sent: Direction,
    ticks: u32,
}

impl ShiftTimestampClock {
    /// Sets the clock of the hosts that send in the direction `sent` forward by
    /// `ticks` of their TSval, modulo 2^32; `0_u32.wrapping_sub(n)` sets it back.
    #[must_use]
    pub fn new(sent: Direction, ticks: u32) -> Self {
        Self { sent, ticks }
    }
}

impl Policy for ShiftTimestampClock {
    fn frame(&mut self, _now: Duration, mut frame: Frame, out: &mut Decisions) {
        let header = frame.segment().map(|segment| segment.header);
        if let Some((header, Timestamps { tsval, tsecr })) = header.and_then(|h| Some((h, h.timestamps?))) {
            let shifted = if frame.direction == self.sent {
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

/// Removes the timestamps option from every segment, in both directions, as if
/// the hosts behind one end did not use it. Up to Linux 4.12 all namespaces share
/// net.ipv4.tcp_timestamps.
#[derive(Clone, Copy, Debug)]
pub struct RemoveTimestamps;

impl Policy for RemoveTimestamps {
    fn frame(&mut self, _now: Duration, mut frame: Frame, out: &mut Decisions) {
        segment::remove_timestamps(&mut frame.bytes);
        out.pass(frame);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::segment;
    use super::*;

    fn shifted(policy: ShiftTimestampClock, frame: Frame) -> Frame {
        let mut out = Decisions::default();
        let mut policy = policy;
        policy.frame(Duration::ZERO, frame, &mut out);
        out.passed.remove(0)
    }

    fn timestamps(frame: &Frame) -> Timestamps {
        frame.segment().unwrap().header.timestamps.unwrap()
    }

    proptest! {
        #[test]
        fn a_removed_option_is_gone(seq: u32, tsval: u32, tsecr: u32) {
            let before = segment(Direction::There, seq, Some(Timestamps { tsval, tsecr }));
            let mut out = Decisions::default();
            RemoveTimestamps.frame(Duration::ZERO, before.clone(), &mut out);
            let after = out.passed.remove(0);
            prop_assert_eq!(after.segment().and_then(|s| s.header.timestamps), None);
            prop_assert_eq!(after.bytes.len(), before.bytes.len());
        }

        #[test]
        fn a_clock_shift_is_invertible(ticks: u32, tsval: u32, tsecr: u32) {
            for direction in Direction::BOTH {
                let frame = segment(direction, 1, Some(Timestamps { tsval, tsecr }));
                let there = shifted(ShiftTimestampClock::new(Direction::There, ticks), frame.clone());
                // No echo and an echo of zero look alike.
                if direction == Direction::There || timestamps(&there).tsecr != 0 {
                    let back = ShiftTimestampClock::new(Direction::There, ticks.wrapping_neg());
                    prop_assert_eq!(shifted(back, there), frame);
                }
            }
        }

        #[test]
        fn an_echo_is_what_was_said(ticks: u32, tsval: u32) {
            let policy = ShiftTimestampClock::new(Direction::There, ticks);
            let said = shifted(policy, segment(Direction::There, 1, Some(Timestamps { tsval, tsecr: 5 })));
            prop_assert_eq!(timestamps(&said), Timestamps { tsval: tsval.wrapping_add(ticks), tsecr: 5 });
            prop_assume!(timestamps(&said).tsval != 0);
            let echo = Timestamps { tsval: 7, tsecr: timestamps(&said).tsval };
            let heard = shifted(policy, segment(Direction::Back, 1, Some(echo)));
            prop_assert_eq!(timestamps(&heard), Timestamps { tsval: 7, tsecr: tsval });
        }
    }

    #[test]
    fn no_echo_stays_none() {
        let policy = ShiftTimestampClock::new(Direction::There, 9);
        let frame = segment(Direction::Back, 1, Some(Timestamps { tsval: 7, tsecr: 0 }));
        assert_eq!(shifted(policy, frame.clone()), frame);
    }
}
