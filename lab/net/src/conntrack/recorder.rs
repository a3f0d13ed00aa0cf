//! conntrack's events with their arrival times.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::events::readable;
use super::{Event, Events};
use crate::namespace::Namespace;
use crate::packet::clock::now;
use faultlab_base::error::{Error, Result};

/// How many events are kept: as many as fit into the socket of [`Events`].
const MOST: usize = 8192;

/// Records the events of a namespace until it is ended or dropped.
///
/// A ctnetlink message has no timestamp, so the reader must wake up for each.
#[derive(Debug)]
pub struct Recorder {
    record: Rc<RefCell<Record>>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Record {
    /// `None` once enough was recorded.
    events: Option<Events>,
    heard: Vec<(Duration, Event)>,
}

impl Recorder {
    /// Starts to record.
    ///
    /// # Errors
    /// As [`Events::listen`].
    ///
    /// # Panics
    /// Outside of a [`LocalSet`](tokio::task::LocalSet).
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let events = Events::listen(namespace)?;
        let socket = events
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::kernel(namespace.name(), "dup the socket of conntrack's events", e))?;
        let record = Rc::new(RefCell::new(Record { events: Some(events), heard: vec![] }));
        let shared = Rc::clone(&record);
        let listen = async move {
            // An error here occurs again at the end of the recording, and is
            // reported then.
            while readable(socket.as_fd()).await.is_ok() && shared.borrow_mut().hear().is_ok_and(|more| more)
            {
            }
        };
        Ok(Self { record, task: tokio::task::spawn_local(listen).abort_handle() })
    }

    /// How many events were recorded so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.record.borrow().heard.len()
    }

    /// Ends the recording. Returns the events with their times on
    /// CLOCK_MONOTONIC, and whether there may have been more.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn end(self) -> Result<(Vec<(Duration, Event)>, bool)> {
        let mut record = self.record.borrow_mut();
        let all = record.hear()?;
        let heard = std::mem::take(&mut record.heard);
        let more = !all || heard.iter().any(|(_, event)| *event == Event::Lost);
        Ok((heard, more))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Record {
    /// Stores the events that arrived; false if that is enough.
    fn hear(&mut self) -> Result<bool> {
        let Some(events) = &mut self.events else { return Ok(false) };
        let at = now();
        self.heard.extend(events.take()?.into_iter().map(|event| (at, event)));
        if self.heard.len() > MOST {
            self.heard.truncate(MOST);
            self.events = None;
        }
        Ok(self.events.is_some())
    }
}
