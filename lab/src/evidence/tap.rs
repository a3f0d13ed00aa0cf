//! The frames on every interface of a network, as tcpdump would see them, and
//! what happens to conntrack's entries meanwhile.
//!
//! A packet socket in each namespace looks on; its ring is read when the arm
//! has ended, so that nothing wakes up for a frame. A ring that is full loses
//! the frames that come then, and the capture says how many.

use std::time::Duration;

use super::conntrack::{Event, Recorder};
use crate::capture::{Capture, End, Frame, Happened, Tracked};
use crate::error::Result;
use crate::network::Host;
use crate::network::ring::{self, Ring, now};

/// The capture of a network that is under way.
pub struct Tap {
    begun: Duration,
    rings: Vec<Ring>,
    /// By the names of hosts that have rules: no other tracks connections.
    recorders: Vec<(String, Recorder)>,
}

impl Tap {
    /// Looks on at these hosts from now on.
    ///
    /// # Errors
    /// Where no packet socket can be had, or conntrack cannot be listened to.
    ///
    /// # Panics
    /// Outside of a [`LocalSet`](tokio::task::LocalSet).
    pub fn on(hosts: &[Host]) -> Result<Self> {
        let rings = ring::open_all(hosts.iter().map(Host::namespace), Ring::on_all)?;
        let recorders = hosts
            .iter()
            .filter(|host| host.has_rules())
            .map(|host| Ok((host.name().to_owned(), Recorder::start(host.namespace())?)))
            .collect::<Result<_>>()?;
        Ok(Self { begun: now(), rings, recorders })
    }

    /// When it began, on CLOCK_MONOTONIC.
    #[must_use]
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// Ends the capture. Frames that were seen after `until`, of the kernel's
    /// clock, are of the end of the arm and not kept.
    ///
    /// # Errors
    /// Where a socket does not answer.
    pub fn end(mut self, hosts: &[Host], until: Duration) -> Result<Capture> {
        let mut capture = Capture { until: until.saturating_sub(self.begun), ..Capture::default() };
        for (host, ring) in hosts.iter().zip(&mut self.rings) {
            let first = capture.ends.len();
            let end = |name: &str, address| End {
                host: host.name().to_owned(),
                interface: name.to_owned(),
                address,
            };
            capture.ends.extend(host.interfaces().iter().map(|i| end(&i.name, i.address)));
            let mut others: Vec<u32> = vec![];
            while let Some(seen) = ring.look()? {
                let known = host.interfaces().iter().position(|i| i.index == seen.interface);
                let at = known.unwrap_or_else(|| {
                    // The loopback, or one that was made later.
                    let before = host.interfaces().len();
                    before
                        + others.iter().position(|&i| i == seen.interface).unwrap_or_else(|| {
                            let name = if seen.interface == 1 {
                                "lo".to_owned()
                            } else {
                                format!("if{}", seen.interface)
                            };
                            capture.ends.push(end(&name, None));
                            others.push(seen.interface);
                            others.len() - 1
                        })
                });
                capture.frames.push(Frame {
                    at: seen.at.saturating_sub(self.begun),
                    end: first + at,
                    outgoing: seen.outgoing,
                    length: seen.length,
                    bytes: seen.bytes,
                    comment: None,
                });
            }
            capture.lost += ring.lost()?;
        }
        for (host, recorder) in self.recorders {
            let (heard, more) = recorder.end()?;
            let happened =
                heard.iter().filter_map(|(at, event)| tracked(&host, at.saturating_sub(self.begun), event));
            capture.tracked.extend(happened);
            capture.untold |= more;
        }
        capture.tracked.retain(|tracked| tracked.at <= capture.until);
        capture.tracked.sort_by_key(|tracked| tracked.at);
        capture.frames.retain(|frame| frame.at <= capture.until);
        // What leaves an end is older than what arrives at the other.
        capture.frames.sort_by_key(|frame| frame.at);
        Ok(capture)
    }
}

/// An event as a capture has it.
fn tracked(host: &str, at: Duration, event: &Event) -> Option<Tracked> {
    let happened = match event {
        Event::New(_) => Happened::New,
        Event::Update(_) => Happened::Update,
        Event::Destroy(_) => Happened::Destroy,
        Event::Lost => return None,
    };
    let entry = event.entry()?;
    let (host, id) = (host.to_owned(), entry.id);
    Some(Tracked { at, host, id, happened, flow: entry.flow(), state: entry.state() })
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rings.iter().map(|ring| ring.place())).finish()
    }
}
