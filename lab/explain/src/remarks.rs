//! What a capture proves about its own frames: the comments of a pcapng file.

use crate::hops::{Hop, HopFate, Probed};
use crate::verdicts::{Reset, Translation, Verdict, Verdicts};
use faultlab_net::capture::{Capture, Carried};

/// What is certain about each frame, one sentence each. Frames are numbered from 1,
/// in the order of the capture.
#[must_use]
pub fn remarks(capture: &Capture) -> Vec<Vec<String>> {
    let Verdicts { hops, all, probed } = Verdicts::of(capture);
    let mut remarks = vec![vec![]; capture.frames.len()];
    let mut say = |frame: Option<usize>, words: String| {
        if let Some(remarks) = frame.and_then(|frame| remarks.get_mut(frame)) {
            remarks.push(words);
        }
    };
    for Probed { probe, frame, .. } in probed {
        let row = probe.row.as_ref().map_or(String::new(), |row| format!(" \"{row}\""));
        say(Some(frame), format!("probe{row}: {probe}"));
    }
    let frame_of = |hop: usize| number(&hops[hop]).unwrap_or_default();
    for (at, (hop, verdict)) in hops.iter().zip(&all).enumerate() {
        let [left, arrived] = hop.frames;
        let Verdict { from, to, reset, translation } = verdict;
        let (from, to) = (from.unwrap_or("?"), to.unwrap_or("?"));
        match hop.fate {
            HopFate::Arrived | HopFate::UnderWay => {}
            HopFate::Lost if hop.carried == Some(Carried::Held) => {
                say(left, format!("held by the wire to {to}"));
            }
            HopFate::Lost => say(left, format!("lost on the link to {to}: it arrives nowhere")),
            // The kernel gave the reason already.
            HopFate::Dropped if hop.comment.is_some() => {}
            HopFate::Dropped => say(arrived, format!("dropped by {to}, which did not forward it")),
            HopFate::Made => say(arrived, format!("made by the wire: it never left {from}")),
        }
        if let Some(first) = hop.first.and_then(|first| number(&hops[first])) {
            say(left, format!("sent again, first in frame {first}"));
        }
        match hop.before.and_then(|before| Some((before, all[before].translation?))) {
            Some((before, Translation::Made { first })) if first == at => {
                let (src, dst) = hops[before].packet.addresses();
                say(left, format!("{from} translates {src} > {dst} of frame {}", frame_of(before)));
            }
            Some((_, Translation::Missing { unlike, .. })) => {
                say(left, format!("{from} does not translate it, unlike frame {}", frame_of(unlike)));
            }
            Some((_, Translation::Made { .. })) | None => {}
        }
        // A dropped packet is not reported as untranslated as well.
        if let Some(Translation::Missing { unlike, .. }) = translation
            && hop.stays
            && hop.fate == HopFate::Arrived
        {
            say(arrived, format!("{to} does not translate it, unlike frame {}", frame_of(*unlike)));
        }
        if capture.lost == 0
            && let Some(reset) = reset
        {
            let words = made(*reset, &hops);
            hop.frames.into_iter().for_each(|frame| say(frame, words.clone()));
        }
    }
    remarks
}

/// The number of the frame in which a hop began.
fn number(hop: &Hop) -> Option<usize> {
    hop.frames[0].or(hop.frames[1]).map(|frame| frame + 1)
}

/// Who sent a RST, and what it answers.
fn made(reset: Reset<'_>, hops: &[Hop]) -> String {
    let Some(maker) = reset.maker else { return "RST made by the wire".to_owned() };
    match reset.answers.and_then(|answered| hops[answered].frames[1]) {
        Some(frame) => format!("RST made by {maker}, answers frame {}", frame + 1),
        None => format!("RST made by {maker}"),
    }
}
