//! The path of each segment, from the host that sent it to where it ended.

use std::collections::HashMap;
use std::time::Duration;

use crate::hops::{HopFate, Payload};
use crate::verdicts::{Reset, Translation, Verdicts};
use faultlab_net::capture::Capture;
use faultlab_net::wire::segment::{Flags, Header, Identity};

pub(super) use crate::verdicts::Endpoints;

/// All segments of an arm.
#[derive(Debug)]
pub(super) struct Journeys<'a> {
    /// In the order in which they were sent.
    pub all: Vec<Journey<'a>>,
    /// When the teardown began.
    pub decided: Duration,
    /// Whether the capture is incomplete: then a missing frame proves nothing.
    pub gaps: bool,
    /// Positions in `all`, by the ports on the last leg and on the first.
    arrived: HashMap<u32, Vec<usize>>,
    sent: HashMap<u32, Vec<usize>>,
}

/// A segment on its path.
#[derive(Debug)]
pub(super) struct Journey<'a> {
    /// Bytes of payload.
    pub length: usize,
    /// The links that it crossed, at least one.
    pub legs: Vec<Leg<'a>>,
    /// For a RST, the journey that it answers: a position in [`Journeys::all`].
    answers: Option<usize>,
}

/// A segment on a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg<'a> {
    /// The host that it left; `None` if a wire generated it.
    pub from: Option<&'a str>,
    /// The host that it was to arrive at, if known.
    pub to: Option<&'a str>,
    /// When it left.
    pub at: Duration,
    /// When it ended.
    pub until: Duration,
    /// Its headers on that link.
    pub header: Header,
    /// What happened to it there.
    pub fate: HopFate,
    /// How the receiving host translated its addresses.
    pub translation: Option<Translation>,
    /// The frame that arrived, as a position in [`Capture::frames`].
    pub frame: Option<usize>,
}

impl<'a> Journeys<'a> {
    pub(super) fn of(capture: &'a Capture) -> Self {
        let Verdicts { hops, all: verdicts, .. } = Verdicts::of(capture);
        let mut all: Vec<Journey<'a>> = vec![];
        // The journey that each hop belongs to.
        let mut of: Vec<Option<usize>> = vec![None; hops.len()];
        for (number, (hop, verdict)) in hops.iter().zip(&verdicts).enumerate() {
            let Payload::Tcp(header, length) = hop.packet.what else { continue };
            let leg = Leg {
                from: verdict.from.filter(|_| hop.fate != HopFate::Made),
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
            arrived.entry(ports(journey.last().endpoints())).or_default().push(n);
            sent.entry(ports(journey.endpoints())).or_default().push(n);
        }
        Self { all, decided: capture.decided(), gaps: capture.lost > 0, arrived, sent }
    }

    /// The segments that were sent before the teardown.
    pub(super) fn evidence(&self) -> impl DoubleEndedIterator<Item = &Journey<'a>> {
        self.all.iter().filter(|journey| journey.first().at <= self.decided)
    }

    /// The segments that arrived at a host, from `src` to `dst`.
    pub(super) fn arrivals(
        &self,
        host: &'a str,
        endpoints: Endpoints,
    ) -> impl DoubleEndedIterator<Item = &Journey<'a>> {
        let near = self.arrived.get(&ports(endpoints)).into_iter().flatten().map(|&n| &self.all[n]);
        near.filter(move |journey| {
            journey.ended_at() == Some(host) && journey.last().endpoints() == endpoints
        })
    }

    /// The segment that a RST answers, by its sequence numbers.
    pub(super) fn answered_by(&self, reset: &Journey<'a>) -> Option<&Journey<'a>> {
        reset.answers.map(|answered| &self.all[answered])
    }

    /// The segments that a host itself sent from `src` to `dst`.
    pub(super) fn departures(
        &self,
        host: &'a str,
        endpoints: Endpoints,
    ) -> impl DoubleEndedIterator<Item = &Journey<'a>> {
        let near = self.sent.get(&ports(endpoints)).into_iter().flatten().map(|&n| &self.all[n]);
        near.filter(move |journey| journey.sender() == Some(host) && journey.endpoints() == endpoints)
    }
}

/// Both ports: cheaper to hash than the whole addresses.
fn ports(endpoints: Endpoints) -> u32 {
    u32::from(endpoints.0.port()) << 16 | u32::from(endpoints.1.port())
}

impl Leg<'_> {
    /// The source and destination on this leg.
    pub(super) fn endpoints(&self) -> Endpoints {
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

    /// The host that sent it; `None` if a wire did.
    pub(super) fn sender(&self) -> Option<&'a str> {
        self.first().from
    }

    /// The last host that it arrived at; `None` if it was lost on a link.
    pub(super) fn ended_at(&self) -> Option<&'a str> {
        let last = self.last();
        last.to.filter(|_| matches!(last.fate, HopFate::Arrived | HopFate::Dropped | HopFate::Made))
    }

    /// Whether it was in flight when the arm ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.last().fate == HopFate::UnderWay
    }

    /// What distinguishes the segment from others on one of its legs.
    pub(super) fn identity(&self, leg: &Leg<'_>) -> Identity {
        leg.header.identity(self.length)
    }

    pub(super) fn has(&self, flags: Flags) -> bool {
        self.first().header.flags.contains(flags)
    }

    /// The source and destination as its sender addressed it.
    pub(super) fn endpoints(&self) -> Endpoints {
        self.first().endpoints()
    }

    /// The source and destination of an answer, as the segment's sender would receive
    /// it.
    pub(super) fn answer_endpoints(&self) -> Endpoints {
        (self.first().header.dst, self.first().header.src)
    }
}
