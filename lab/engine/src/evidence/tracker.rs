//! What looks on at the conntrack of a host: at its counters, what happens to its
//! entries, and what it says of segments.

use std::time::Duration;

use super::invalid::InvalidLogs;
use faultlab_base::error::Result;
use faultlab_model::recording::HostRecording;
use faultlab_net::capture::{Capture, Happened, Tracked};
use faultlab_net::conntrack::{Conntrack, Event, Events, Recorder, Stats};
use faultlab_net::network::Host;

/// How many events a capture keeps: a page has room for no more.
const MOST: usize = 300;

/// What looks on at the conntrack of a host.
#[derive(Debug)]
pub(super) struct Tracker {
    conntrack: Conntrack,
    before: Stats,
    listener: Listener,
    /// None where the kernel has no nfnetlink_log.
    invalid_logs: Option<InvalidLogs>,
}

/// What hears of conntrack's events.
#[derive(Debug)]
enum Listener {
    /// The socket alone: nothing wakes up, and nobody knows when they came.
    Events(Events),
    /// One that notes when.
    Recorder(Recorder),
}

impl Tracker {
    /// Looks on from now on; `timed` where it is to be known when things
    /// happened.
    ///
    /// # Errors
    /// Where conntrack cannot be listened to.
    ///
    /// # Panics
    /// Where it is timed, outside of a [`LocalSet`](tokio::task::LocalSet).
    pub(super) fn of(host: &Host, timed: bool) -> Result<Self> {
        let namespace = host.namespace();
        let conntrack = Conntrack::of(namespace)?;
        Ok(Self {
            before: conntrack.stats()?,
            conntrack,
            listener: if timed {
                Listener::Recorder(Recorder::start(namespace)?)
            } else {
                Listener::Events(Events::listen(namespace)?)
            },
            invalid_logs: InvalidLogs::listen(namespace).ok(),
        })
    }

    /// Tells what was seen: all of it to the host's recording, and to a capture
    /// that begun then what it is known when it happened.
    ///
    /// # Errors
    /// Where the kernel's tables cannot be read.
    pub(super) fn end(
        self,
        recording: &mut HostRecording,
        capture: &mut Capture,
        begun: Duration,
    ) -> Result<()> {
        recording.conntrack = Stats::changes(&self.before, &self.conntrack.stats()?);
        recording.invalid_logs = self.invalid_logs.map_or(Ok(vec![]), |invalid_logs| invalid_logs.take())?;
        recording.events = match self.listener {
            Listener::Events(mut events) => events.take()?.into_iter().map(|event| (None, event)).collect(),
            Listener::Recorder(recorder) => {
                let (heard, more) = recorder.end()?;
                let (tracked, left_out) = told(&recording.name, begun, &heard);
                capture.tracked.extend(tracked);
                capture.untold |= more || left_out;
                heard.into_iter().map(|(at, event)| (Some(at), event)).collect()
            }
        };
        Ok(())
    }
}

/// The first events as a capture that begun then has them, and whether there
/// were more.
fn told(host: &str, begun: Duration, heard: &[(Duration, Event)]) -> (Vec<Tracked>, bool) {
    let known = |(at, event): &(Duration, Event)| tracked(host, at.saturating_sub(begun), event);
    (heard.iter().filter_map(known).take(MOST).collect(), heard.len() > MOST)
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

#[cfg(test)]
mod tests {
    use super::*;
    use faultlab_net::conntrack::{Entry, Status, Tuple};

    #[test]
    fn a_capture_has_the_first_events() {
        let ends = [([10, 0, 0, 2], 5000), ([192, 0, 2, 2], 53)];
        let entry = Entry {
            original: Tuple::udp(ends[0], ends[1]),
            reply: Tuple::udp(ends[1], ends[0]),
            status: Status::CONFIRMED,
            timeout: None,
            tcp_state: None,
            id: 7,
        };
        let second = Duration::from_secs(1);
        let heard: Vec<_> = (1..=301).map(|n| (n * second, Event::New(entry))).collect();
        let (tracked, left_out) = told("nat", second, &heard);
        assert_eq!((tracked.len(), left_out), (300, true));
        assert_eq!((tracked[0].at, &*tracked[0].host, tracked[0].id), (Duration::ZERO, "nat", 7));
        assert!(!told("nat", second, &heard[1..]).1);
    }
}
