//! Observes the conntrack of a host: its counters, the events of its entries, and its
//! log messages about segments.

use std::time::Duration;

use super::invalid::InvalidLogs;
use faultlab_base::error::Result;
use faultlab_model::recording::HostRecording;
use faultlab_net::capture::{Capture, ConntrackEvent, EventKind};
use faultlab_net::conntrack::{Conntrack, Event, Events, Recorder, Stats};
use faultlab_net::network::Host;

/// The maximum number of conntrack events of a host in a capture.
const MOST: usize = 300;

/// Observes the conntrack of a host.
#[derive(Debug)]
pub(super) struct Tracker {
    conntrack: Conntrack,
    before: Stats,
    listener: Listener,
    /// `None` if the kernel has no nfnetlink_log.
    invalid_logs: Option<InvalidLogs>,
}

/// A receiver of conntrack events.
#[derive(Debug)]
enum Listener {
    /// A socket that is read at the end: nothing wakes up, and the times of events are
    /// unknown.
    Events(Events),
    /// A task that records each event with its time.
    Recorder(Recorder),
}

impl Tracker {
    /// Observes from now on; with `timed`, the times of events are recorded.
    ///
    /// # Errors
    /// If conntrack events cannot be received.
    ///
    /// # Panics
    /// If it is timed, outside of a [`LocalSet`](tokio::task::LocalSet).
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

    /// Adds the observations to the host's recording, and the events with a known time
    /// to the capture, which began at `begun`.
    ///
    /// # Errors
    /// If the kernel's tables cannot be read.
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
                capture.events_cut |= more || left_out;
                heard.into_iter().map(|(at, event)| (Some(at), event)).collect()
            }
        };
        Ok(())
    }
}

/// The first events, with times relative to the start of the capture, and whether
/// there were more.
fn told(host: &str, begun: Duration, heard: &[(Duration, Event)]) -> (Vec<ConntrackEvent>, bool) {
    let known = |(at, event): &(Duration, Event)| tracked(host, at.saturating_sub(begun), event);
    (heard.iter().filter_map(known).take(MOST).collect(), heard.len() > MOST)
}

/// An event in the form of a capture.
fn tracked(host: &str, at: Duration, event: &Event) -> Option<ConntrackEvent> {
    let happened = match event {
        Event::New(_) => EventKind::New,
        Event::Update(_) => EventKind::Update,
        Event::Destroy(_) => EventKind::Destroy,
        Event::Lost => return None,
    };
    let entry = event.entry()?;
    let (host, id) = (host.to_owned(), entry.id);
    Some(ConntrackEvent {
        at,
        host: host.into(),
        id,
        happened,
        flow: entry.flow().into(),
        state: entry.state().into(),
    })
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
