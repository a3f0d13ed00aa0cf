//! What a capture proves about its own frames: the comments of a pcapng file.

use crate::copies::{Frames, Shown, is_changed};
use crate::hops::{Hop, HopFate, Probed};
use crate::verdicts::{Reset, Translation, Verdict, Verdicts};
use faultlab_net::capture::{Capture, Carried};

/// A frame to show, and the comments on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remarked {
    /// The frame, a position in [`Capture::frames`].
    pub frame: usize,
    /// What is certain about the packet, one sentence each. Frames are numbered from
    /// 1, in the order of those that are shown.
    pub remarks: Vec<String>,
}

/// The frames to show of a capture, in order, with comments.
#[must_use]
pub fn remarks(capture: &Capture, frames: Frames) -> Vec<Remarked> {
    let verdicts = Verdicts::of(capture);
    let shown = Shown::of(capture, &verdicts.hops, frames);
    let mut all: Vec<Vec<String>> = vec![vec![]; capture.frames.len()];
    let mut say = |frame: usize, words: String| {
        if let Some(remarks) = all.get_mut(shown.by(frame)).filter(|remarks| !remarks.contains(&words)) {
            remarks.push(words);
        }
    };
    for (number, frame) in capture.frames.iter().enumerate() {
        frame.comment.iter().for_each(|comment| say(number, comment.to_string()));
    }
    for (frame, words) in proved(capture, &verdicts, &shown) {
        say(frame, words);
    }
    let all = all.into_iter().enumerate().filter(|(frame, _)| shown.by(*frame) == *frame);
    all.map(|(frame, remarks)| Remarked { frame, remarks }).collect()
}

/// What the capture proves about its frames.
fn proved(capture: &Capture, verdicts: &Verdicts<'_>, shown: &Shown) -> Vec<(usize, String)> {
    let Verdicts { hops, all, probed } = verdicts;
    let mut proved = vec![];
    let mut say = |frame: Option<usize>, words: String| proved.extend(frame.map(|frame| (frame, words)));
    let number = |hop: &Hop| hop.frames[0].or(hop.frames[1]).map(|frame| shown.number(frame));
    for Probed { probe, frame, .. } in probed {
        let row = probe.row.as_ref().map_or(String::new(), |row| format!(" \"{row}\""));
        say(Some(*frame), format!("probe{row}: {probe}"));
    }
    let frame_of = |hop: usize| number(&hops[hop]).unwrap_or_default();
    for (at, (hop, verdict)) in hops.iter().zip(all).enumerate() {
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
        if is_changed(hop) {
            let changed = hop.changed.as_deref().unwrap_or("the wire changed it");
            say(arrived, format!("as {to} received it: {changed}"));
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
        // Do not report a dropped packet as untranslated as well.
        if let Some(Translation::Missing { unlike, .. }) = translation
            && hop.stays
            && hop.fate == HopFate::Arrived
        {
            say(arrived, format!("{to} does not translate it, unlike frame {}", frame_of(*unlike)));
        }
        if capture.lost == 0
            && let Some(reset) = reset
        {
            let words = made(*reset, hops, shown);
            hop.frames.into_iter().for_each(|frame| say(frame, words.clone()));
        }
    }
    proved
}

/// Who sent a RST, and what it answers.
fn made(reset: Reset<'_>, hops: &[Hop], shown: &Shown) -> String {
    let Some(maker) = reset.maker else { return "RST made by the wire".to_owned() };
    match reset.answers.and_then(|answered| hops[answered].frames[1]) {
        Some(frame) => format!("RST made by {maker}, answers frame {}", shown.number(frame)),
        None => format!("RST made by {maker}"),
    }
}
