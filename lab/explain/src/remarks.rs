//! What a capture proves of its own frames: the comments of a pcapng file.
//!
//! - RFC 9293 3.10.7.1: "If the ACK bit is off, sequence number zero is used,
//!   <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit is on,
//!   <SEQ=SEG.ACK><CTL=RST>."

use std::collections::HashMap;

use crate::hops::{Fate, Hop, Packet, Probed, What, between, hops, probed, way};
use faultlab_net::capture::{Capture, Carried};
use faultlab_net::wire::segment::{Flags, Header};

/// What is certain of each frame, a sentence each. Frames are numbered from 1
/// on, in the order of the capture.
#[must_use]
pub fn remarks(capture: &Capture) -> Vec<Vec<String>> {
    let hops = hops(capture);
    let mut remarks = vec![vec![]; capture.frames.len()];
    let mut say = |frame: Option<usize>, words: String| {
        if let Some(remarks) = frame.and_then(|frame| remarks.get_mut(frame)) {
            remarks.push(words);
        }
    };
    for Probed { probe, frame, .. } in probed(capture, &hops) {
        let row = probe.row.as_ref().map_or(String::new(), |row| format!(" \"{row}\""));
        say(Some(frame), format!("probe{row}: {probe}"));
    }
    let mut translated = HashMap::new();
    for hop in &hops {
        let [left, arrived] = hop.frames;
        let (from, to) = between(capture, hop);
        let (from, to) = (from.unwrap_or("?"), to.unwrap_or("?"));
        match hop.fate {
            Fate::Arrived | Fate::UnderWay => {}
            Fate::Lost if hop.carried == Some(Carried::Held) => {
                say(left, format!("held by the wire to {to}"));
            }
            Fate::Lost => say(left, format!("lost on the wire to {to}: it arrives nowhere")),
            // The kernel has said why.
            Fate::Dropped if hop.comment.is_some() => {}
            Fate::Dropped => say(arrived, format!("dropped by {to}: it arrives here and never leaves again")),
            Fate::Made => say(arrived, format!("made by the wire: it never left {from}")),
        }
        if let Some(first) = hop.first.and_then(|first| number(&hops[first])) {
            say(left, format!("sent again, first in frame {first}"));
        }
        let addresses = hop.packet.addresses();
        if let Some(before) = hop.before.map(|before| &hops[before]) {
            let were = before.packet.addresses();
            let frame = number(before).unwrap_or_default();
            let known = translated.get(&(from, were.clone()));
            if were != addresses {
                if known.is_none() {
                    let (src, dst) = &were;
                    say(left, format!("{from} translates {src} > {dst} of frame {frame}"));
                    translated.insert((from, were), number(hop).unwrap_or_default());
                }
            } else if let Some(known) = known {
                say(left, format!("{from} does not translate it, unlike frame {known}"));
            }
        }
        if hop.stays
            && hop.fate == Fate::Arrived
            && let Some(known) = translated.get(&(to, addresses))
        {
            say(arrived, format!("{to} does not translate it, unlike frame {known}"));
        }
        if capture.lost == 0
            && let Some(words) = reset(capture, &hops, hop)
        {
            hop.frames.into_iter().for_each(|frame| say(frame, words.clone()));
        }
    }
    remarks
}

/// The number of the frame that a hop began with.
fn number(hop: &Hop) -> Option<usize> {
    hop.frames[0].or(hop.frames[1]).map(|frame| frame + 1)
}

/// Who made a RST, and what it answers.
fn reset(capture: &Capture, hops: &[Hop], hop: &Hop) -> Option<String> {
    tcp(&hop.packet).filter(|header| header.flags.contains(Flags::RST))?;
    let origin = way::origin(hops, hop);
    let Some((end, _)) = origin.left else { return Some("RST made by the wire".to_owned()) };
    let maker = &capture.ends[end].host;
    let answered = answered(capture, hops, origin).and_then(|answered| answered.frames[1]);
    Some(match answered {
        Some(frame) => format!("RST made by {maker}, answers frame {}", frame + 1),
        None => format!("RST made by {maker}"),
    })
}

/// What a RST answers by its numbers: the last segment to arrive that had them.
#[must_use]
pub fn answered<'a>(capture: &Capture, hops: &'a [Hop], reset: &Hop) -> Option<&'a Hop> {
    let header = tcp(&reset.packet).filter(|header| header.flags.contains(Flags::RST))?;
    let (end, at) = reset.left?;
    let host = &capture.ends[end].host;
    let answers = |hop: &&Hop| {
        let Some(asked) = tcp(&hop.packet) else { return false };
        let here = hop.arrived.is_some_and(|(end, arrived)| capture.ends[end].host == *host && arrived <= at);
        let numbers = if asked.flags.contains(Flags::ACK) {
            !header.flags.contains(Flags::ACK) && header.seq == asked.ack
        } else {
            let next = asked.seq.wrapping_add(hop.packet.sequence_length());
            header.flags.contains(Flags::ACK) && (header.seq, header.ack) == (0, next)
        };
        here && (asked.src, asked.dst) == (header.dst, header.src) && numbers
    };
    hops.iter().filter(answers).max_by_key(|hop| hop.until())
}

fn tcp(packet: &Packet) -> Option<&Header> {
    if let What::Tcp(header, _) = &packet.what { Some(header) } else { None }
}
