//! conntrack's events, in the format of `conntrack -E`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use std::{fmt, io};

use netlink_packet_core::NLM_F_CREATE;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Conntrack, Entry};
use crate::namespace::Namespace;
use crate::netlink::nfnetlink::{Message, Nfnetlink, messages};
use faultlab_base::error::{Error, Result};

// include/uapi/linux/netfilter/nfnetlink.h: enum nfnetlink_groups.
const NFNLGRP_CONNTRACK_NEW: u32 = 1;
const NFNLGRP_CONNTRACK_UPDATE: u32 = 2;
const NFNLGRP_CONNTRACK_DESTROY: u32 = 3;

// NFNL_SUBSYS_CTNETLINK in the high byte, enum cntl_msg_types in the low byte.
const IPCTNL_MSG_CT_NEW: u16 = 1 << 8;
const IPCTNL_MSG_CT_DELETE: u16 = 1 << 8 | 2;

/// An event is below 500 bytes and uses about 1 KiB of the buffer.
const RECEIVE_BUFFER: usize = 8 << 20;

/// An event of a conntrack entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The first packet of a flow passed.
    New(Entry),
    /// The entry changed: its state, its status. A timeout refresh is no event.
    Update(Entry),
    /// The entry is gone: deleted, expired or evicted.
    Destroy(Entry),
    /// The kernel had more events than the socket could hold (ENOBUFS).
    Lost,
}

impl Event {
    fn decode(message: &Message<'_>) -> Option<Self> {
        let kind = match message.kind {
            // ctnetlink_conntrack_event: NEW is an UPDATE with NLM_F_CREATE.
            IPCTNL_MSG_CT_NEW if message.flags & NLM_F_CREATE != 0 => Self::New,
            IPCTNL_MSG_CT_NEW => Self::Update,
            IPCTNL_MSG_CT_DELETE => Self::Destroy,
            _ => return None,
        };
        Entry::decode(message).map(kind)
    }

    /// The entry, as it was at the event.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::New(entry) | Self::Update(entry) | Self::Destroy(entry) => Some(entry),
            Self::Lost => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New(entry) => write!(f, "[NEW] {entry}"),
            Self::Update(entry) => write!(f, "[UPDATE] {entry}"),
            Self::Destroy(entry) => write!(f, "[DESTROY] {entry}"),
            Self::Lost => f.write_str("[LOST] events (ENOBUFS)"),
        }
    }
}

/// A listener for the events of a namespace. It keeps the namespace alive.
///
/// With nf_conntrack_events=2 (the default since 5.19), the kernel reports only
/// entries that were created while someone listened.
#[derive(Debug)]
pub struct Events {
    nfnetlink: Nfnetlink,
    record: Vec<Event>,
    awaited: usize,
}

impl Events {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Missing`] if the kernel has no ctnetlink. Without
    /// CONFIG_NF_CONNTRACK_EVENTS there are no events and no error.
    pub fn listen(namespace: &Namespace) -> Result<Self> {
        let Conntrack { nfnetlink } = Conntrack::of(namespace)?;
        let socket = nfnetlink.socket();
        // The larger buffer needs CAP_NET_ADMIN on the machine; otherwise
        // net.core.rmem_max limits it.
        let sized = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER));
        sized.map_err(|e| Error::kernel(nfnetlink.place(), "setsockopt(SO_RCVBUF)", e))?;
        // The socket is bound: the kernel does not multicast to an unbound one.
        for group in [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE, NFNLGRP_CONNTRACK_DESTROY] {
            socket
                .add_membership(group)
                .map_err(|e| Error::kernel(nfnetlink.place(), "join the conntrack events", e))?;
        }
        Ok(Self { nfnetlink, record: Vec::new(), awaited: 0 })
    }

    /// All events since the last `take`, including awaited ones.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn take(&mut self) -> Result<Vec<Event>> {
        self.read()?;
        self.awaited = 0;
        Ok(std::mem::take(&mut self.record))
    }

    /// The next event that was not awaited yet.
    ///
    /// # Errors
    /// [`Error::Deadline`] if none arrives within this time of the machine's
    /// clock.
    pub async fn next(&mut self, within: Duration) -> Result<Event> {
        self.until("a conntrack event", within, |_| true).await
    }

    /// The next event for which `wanted` holds; earlier ones count as awaited.
    ///
    /// # Errors
    /// [`Error::Deadline`], which names `condition`, if none arrives within this
    /// time of the machine's clock.
    pub async fn until(
        &mut self,
        condition: &str,
        within: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let come = async {
            loop {
                self.read()?;
                while let Some(event) = self.record.get(self.awaited) {
                    self.awaited += 1;
                    if wanted(event) {
                        return Ok(*event);
                    }
                }
                readable(self.as_fd()).await.map_err(|e| self.error(e))?;
            }
        };
        match tokio::time::timeout(within, come).await {
            Ok(event) => event,
            Err(_) => Err(Error::Deadline {
                place: self.nfnetlink.place().to_owned(),
                condition: condition.to_owned(),
                waited: within,
            }),
        }
    }

    /// Records the events in the socket.
    fn read(&mut self) -> Result<()> {
        loop {
            match self.nfnetlink.receive() {
                Ok(datagram) => self.record.extend(messages(&datagram).filter_map(|m| Event::decode(&m))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.record.push(Event::Lost),
                Err(e) => return Err(self.error(e)),
            }
        }
    }

    fn error(&self, error: io::Error) -> Error {
        Error::kernel(self.nfnetlink.place(), "read the conntrack events", error)
    }
}

/// Waits until there are events to read.
pub(super) async fn readable(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the socket is open while it is borrowed, which is longer than the
    // registration.
    #[allow(unsafe_code, reason = "registers a borrowed descriptor, see SAFETY")]
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
    socket.readable().await.map(drop)
}

impl AsFd for Events {
    /// Readable when there are events to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.nfnetlink.socket().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded(
            mut bytes in proptest::collection::vec(any::<u8>(), 24..300), kind in 0u8..3, create: bool,
        ) {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&(1 << 8 | u16::from(kind)).to_ne_bytes());
            bytes[6..8].copy_from_slice(&(u16::from(create) * NLM_F_CREATE).to_ne_bytes());
            bytes[16] = 2;
            for message in messages(&bytes) {
                let _ = Event::decode(&message).map(|event| event.to_string());
            }
        }
    }
}
