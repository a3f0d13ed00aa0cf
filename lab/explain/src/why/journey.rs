//! The way of each segment, from the host that sent it to where it ended.

use std::collections::HashMap;
use std::time::Duration;

use crate::hops::{Fate, What};
use crate::verdicts::{Reset, Translation, Verdicts};
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::{Flags, Header, Identity};

pub(super) use crate::verdicts::Way;

/// All segments of an arm.
#[derive(Debug)]
pub(super) struct Journeys<'a> {
    /// In the order in which they were sent.
    pub all: Vec<Journey<'a>>,
    /// When the capture ended.
    pub until: Duration,
    /// Whether frames were not kept: then what was not seen may have happened.
    pub gaps: bool,
    /// Positions in `all` by the ports at the last leg, and at the first.
    arrived: HashMap<u32, Vec<usize>>,
    sent: HashMap<u32, Vec<usize>>,
}

/// A segment on its way.
#[derive(Debug)]
pub(super) struct Journey<'a> {
    /// Bytes of payload.
    pub length: usize,
    /// Its links, at least one.
    pub legs: Vec<Leg<'a>>,
    /// The journey that it answers, where it is a RST: a position in
    /// [`Journeys::all`].
    answers: Option<usize>,
}

/// A segment on a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg<'a> {
    /// Where it left; none where a wire made it.
    pub from: Option<&'a str>,
    /// Where it was to arrive, if that is known.
    pub to: Option<&'a str>,
    /// When it left.
    pub at: Duration,
    /// When it was over.
    pub until: Duration,
    /// Its headers there.
    pub header: Header,
    /// What became of it there.
    pub fate: Fate,
    /// What the host that it arrived at made of its addresses.
    pub translation: Option<Translation>,
    /// The frame that arrived, a position in [`Capture::frames`].
    pub frame: Option<usize>,
}

impl<'a> Journeys<'a> {
    pub(super) fn of(capture: &'a Capture) -> Self {
        let Verdicts { hops, all: verdicts, .. } = Verdicts::of(capture);
        let mut all: Vec<Journey<'a>> = vec![];
        // By hop, the journey that it is of.
        let mut of: Vec<Option<usize>> = vec![None; hops.len()];
        for (number, (hop, verdict)) in hops.iter().zip(&verdicts).enumerate() {
            let What::Tcp(header, length) = hop.packet.what else { continue };
            let leg = Leg {
                from: verdict.from.filter(|_| hop.fate != Fate::Made),
                to: verdict.to,
                at: hop.at(),
                until: hop.until(),
                header,
                fate: hop.fate,
                translation: verdict.translation,
                frame: hop.frames[1],
            };
            if let Some(before) = hop.before.and_then(|before| of[before]) {
                of[number] = Some(before);
                all[before].legs.push(leg);
            } else {
                of[number] = Some(all.len());
                all.push(Journey { length, legs: vec![leg], answers: None });
            }
        }
        for (number, verdict) in of.iter().zip(&verdicts) {
            if let (Some(number), Some(Reset { answers: Some(answered), .. })) = (number, verdict.reset) {
                all[*number].answers = of[answered];
            }
        }
        let (mut arrived, mut sent) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (n, journey) in all.iter().enumerate() {
            arrived.entry(ports(journey.last().way())).or_default().push(n);
            sent.entry(ports(journey.way())).or_default().push(n);
        }
        Self { all, until: capture.until, gaps: capture.lost > 0, arrived, sent }
    }

    /// What arrived at a host, addressed to `dst` by `src`.
    pub(super) fn arrivals(&self, host: &'a str, way: Way) -> impl DoubleEndedIterator<Item = &Journey<'a>> {
        let near = self.arrived.get(&ports(way)).into_iter().flatten().map(|&n| &self.all[n]);
        near.filter(move |journey| journey.ended_at() == Some(host) && journey.last().way() == way)
    }

    /// The segment that a RST answers by its numbers.
    pub(super) fn answered(&self, reset: &Journey<'a>) -> Option<&Journey<'a>> {
        reset.answers.map(|answered| &self.all[answered])
    }

    /// What a host sent from `src` to `dst` that was its own.
    pub(super) fn departures(
        &self,
        host: &'a str,
        way: Way,
    ) -> impl DoubleEndedIterator<Item = &Journey<'a>> {
        let near = self.sent.get(&ports(way)).into_iter().flatten().map(|&n| &self.all[n]);
        near.filter(move |journey| journey.sender() == Some(host) && journey.way() == way)
    }
}

/// The ports of both, which are hashed sooner than all of it.
fn ports(way: Way) -> u32 {
    u32::from(way.0.port()) << 16 | u32::from(way.1.port())
}

impl Leg<'_> {
    /// From whom to whom it was there.
    pub(super) fn way(&self) -> Way {
        (self.header.src, self.header.dst)
    }
}

impl<'a> Journey<'a> {
    pub(super) fn first(&self) -> &Leg<'a> {
        &self.legs[0]
    }

    pub(super) fn last(&self) -> &Leg<'a> {
        self.legs.last().expect("a journey has a leg")
    }

    /// The host that sent it; none where a wire did.
    pub(super) fn sender(&self) -> Option<&'a str> {
        self.first().from
    }

    /// The host that it arrived at last; none where it was lost on a link.
    pub(super) fn ended_at(&self) -> Option<&'a str> {
        let last = self.last();
        last.to.filter(|_| matches!(last.fate, Fate::Arrived | Fate::Dropped | Fate::Made))
    }

    /// Whether it is of the end of the arm.
    pub(super) fn is_under_way(&self) -> bool {
        self.last().fate == Fate::UnderWay
    }

    /// What tells the segment from others on one of its legs.
    pub(super) fn identity(&self, leg: &Leg<'_>) -> Identity {
        leg.header.identity(self.length)
    }

    pub(super) fn has(&self, flags: Flags) -> bool {
        self.first().header.flags.contains(flags)
    }

    /// From whom to whom, as its sender had it.
    pub(super) fn way(&self) -> Way {
        self.first().way()
    }

    /// The way of an answer to it, as its sender would get that.
    pub(super) fn way_back(&self) -> Way {
        (self.first().header.dst, self.first().header.src)
    }
}
