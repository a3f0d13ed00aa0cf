//! The timestamp of a SYN, where a kernel compared it and rejected the SYN.
//!
//! A kernel compares the timestamp of a segment with the last one of the same
//! connection, which may be in TIME_WAIT (RFC 7323 5.3). With tcp_tw_recycle, Linux
//! up to 4.11 also compares that of a SYN with the last one of the same address.
//! Other timestamps are not comparable: from 4.10 on, they have an offset per
//! connection or per pair of addresses (net/core/secure_seq.c: secure_tcp_ts_off).
//!
//! The kernel's version does not show that a check rejected the SYN: the counter of the
//! check must have increased.

use std::time::Duration;

use super::journey::{Journey, Leg};
use super::{Arm, counters, seconds};
use crate::hops::HopFate;
use faultlab_net::wire::segment::Flags;

/// The counters of segments rejected by the last timestamp of their connection, open
/// or in TIME_WAIT.
const OF_CONNECTION: [&str; 2] = ["PAWSEstab", "PAWSTimewait"];
/// The counter of SYNs rejected by the last timestamp of their address.
const OF_ADDRESS: [&str; 1] = ["PAWSPassive"];
/// include/net/tcp.h, TCP_PAWS_MSL: how long the last timestamp of an address counts.
const REMEMBERED: Duration = Duration::from_secs(60);
/// include/net/tcp.h, TCP_PAWS_WINDOW: how far behind it a SYN may be.
const WINDOW: u32 = 1;

/// Why a check of timestamps rejected a SYN: how far it is behind the segment that it
/// was compared with, or that it lacks a timestamp. `None` if no check rejected it.
pub(super) fn rejected(arm: &Arm<'_>, syn: &Journey<'_>) -> Option<String> {
    let there = syn.last();
    if !syn.has(Flags::SYN) {
        return None;
    }
    if counted(arm, there, &OF_CONNECTION)
        && let Some(text) = behind_its_connection(arm, there)
    {
        return Some(text);
    }
    counted(arm, there, &OF_ADDRESS).then(|| behind_its_address(arm, there)).flatten()
}

/// Whether one of these counters moved where the segment ended: at the host, or on the
/// wire that stands in for its kernel.
fn counted(arm: &Arm<'_>, end: &Leg<'_>, names: &[&str]) -> bool {
    let to = end.to.unwrap_or_default();
    if end.fate == HopFate::Lost {
        let wire = counters::of_wire(arm, [end.from.unwrap_or_default(), to]);
        wire.iter().any(|(name, _)| names.contains(name))
    } else {
        counters::of(arm, to).iter().any(|moved| names.contains(&moved.name))
    }
}

fn behind_its_connection(arm: &Arm<'_>, syn: &Leg<'_>) -> Option<String> {
    let (at, last) = last_stamp(arm, syn, |leg| leg.endpoints() == syn.endpoints())?;
    let tsval = syn.header.timestamps?.tsval;
    let behind = behind(last, tsval, 0)?;
    let (src, dst) = syn.endpoints();
    let before = seconds(syn.at.saturating_sub(at));
    Some(format!("its TS val {tsval} is {behind} behind {last}, the last of {src} > {dst}, {before} before"))
}

fn behind_its_address(arm: &Arm<'_>, syn: &Leg<'_>) -> Option<String> {
    let from = syn.header.src.ip();
    let (at, last) = last_stamp(arm, syn, |leg| leg.header.src.ip() == from)?;
    let age = syn.at.saturating_sub(at);
    if age > REMEMBERED {
        return None;
    }
    let to = syn.to.unwrap_or("?");
    let before = format!("{last}, the last from {from} to {to}, {} before", seconds(age));
    let Some(tsval) = syn.header.timestamps.map(|stamps| stamps.tsval) else {
        return Some(format!("it came without a TS val, after {before}"));
    };
    if let Some(answered) = answer_without_timestamps(arm, syn) {
        let later = seconds(answered.saturating_sub(syn.at));
        return Some(format!(
            "{to} does not use timestamps: its next SYN-ACK to a SYN with a TS val, {later} later, has none"
        ));
    }
    let behind = behind(last, tsval, WINDOW)?;
    Some(format!("its TS val {tsval} is {behind} behind {before}"))
}

/// When the receiver of a SYN next answered a SYN that has timestamps, if the answer
/// has none. RFC 7323 3.2: a host that uses the option must answer with it.
fn answer_without_timestamps(arm: &Arm<'_>, syn: &Leg<'_>) -> Option<Duration> {
    let asked = |answer: &Leg<'_>| {
        arm.journeys.all.iter().map(Journey::last).any(|leg| {
            leg.header.flags.opens()
                && leg.header.timestamps.is_some()
                && leg.at < answer.at
                && (leg.header.src, leg.header.dst) == (answer.header.dst, answer.header.src)
        })
    };
    let sent = arm.journeys.all.iter().map(Journey::first);
    let mut answers =
        sent.filter(|leg| leg.from == syn.to && leg.at > syn.at && leg.header.flags == Flags::SYN_ACK);
    let next = answers.find(|answer| asked(answer))?;
    next.header.timestamps.is_none().then_some(next.at)
}

/// When the last of the earlier segments like these arrived over the same link, and
/// its timestamp.
fn last_stamp(arm: &Arm<'_>, syn: &Leg<'_>, is_like: impl Fn(&Leg<'_>) -> bool) -> Option<(Duration, u32)> {
    let legs = arm.journeys.all.iter().flat_map(|journey| &journey.legs);
    let before = legs.filter(|leg| {
        (leg.from, leg.to) == (syn.from, syn.to)
            && is_like(leg)
            && leg.at < syn.at
            && leg.header.seq != syn.header.seq
            && !leg.header.flags.contains(Flags::RST)
            && leg.fate == HopFate::Arrived
    });
    before.filter_map(|leg| Some((leg.at, leg.header.timestamps?.tsval))).reduce(|_, later| later)
}

/// How far a timestamp is behind the last one, if further than `window`.
fn behind(last: u32, tsval: u32, window: u32) -> Option<u32> {
    // RFC 7323 5.2: s < t where 0 < (t - s) < 2^31.
    Some(last.wrapping_sub(tsval)).filter(|behind| (window + 1..1 << 31).contains(behind))
}
