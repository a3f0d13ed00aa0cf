//! The conntrack table of a namespace, for both families, over ctnetlink.
//!
//! Since Linux 4.10 a namespace tracks nothing until a rule in it asks for
//! conntrack (`ct state`, NAT).
//!
//! - net/netfilter/nf_conntrack_netlink.c
//! - include/uapi/linux/netfilter/nfnetlink_conntrack.h

mod entry;
mod events;
mod recorder;
mod stats;
mod tuple;

use std::io;

use netlink_packet_netfilter::conntrack::ConntrackMessage;

pub use self::entry::{Entry, Status, TcpState};
pub use self::events::{Event, Events};
pub use self::recorder::Recorder;
pub use self::stats::{Change, Statistic, Stats};
pub use self::tuple::{Transport, Tuple};
use crate::namespace::Namespace;
use crate::netlink::nfnetlink::Nfnetlink;
use faultlab_base::error::{Error, Result};

/// The conntrack table of a namespace. It keeps the namespace alive.
#[derive(Debug)]
pub struct Conntrack {
    nfnetlink: Nfnetlink,
}

impl Conntrack {
    /// The table of `namespace`.
    ///
    /// # Errors
    /// [`Error::Missing`] if the kernel has no ctnetlink.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let conntrack = Self { nfnetlink: Nfnetlink::open(namespace)? };
        conntrack.read_stats().map_err(|e| match e.raw_os_error() {
            // nfnetlink_rcv_msg: no such subsystem.
            Some(libc::EINVAL) => Error::missing(
                "nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)",
                format!("{} needs it to look at conntrack", namespace.name()),
            ),
            _ => conntrack.error("read the conntrack statistics", e),
        })?;
        Ok(conntrack)
    }

    /// All entries, sorted by protocol and original direction.
    ///
    /// # Errors
    /// If the kernel does not list them.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.nfnetlink
            .dump(None, ConntrackMessage::Get(vec![]), |message| entries.extend(Entry::decode(&message)))
            .map_err(|e| self.error("list the conntrack entries", e))?;
        entries.sort_unstable();
        Ok(entries)
    }

    /// The entry of a flow, found by the tuple of either direction.
    ///
    /// # Errors
    /// If the lookup fails.
    pub fn entry(&self, tuple: &Tuple) -> Result<Option<Entry>> {
        let mut entry = None;
        let request = ConntrackMessage::Get(vec![tuple.attribute()]);
        match self.nfnetlink.request(Some(tuple.family()), request, |message| entry = Entry::decode(&message))
        {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                Err(self.error(&format!("look up the conntrack entry {tuple}"), e))
            }
            _ => Ok(entry),
        }
    }

    /// Deletes the entry of a flow, found by the tuple of either direction.
    /// Returns false if there was none.
    ///
    /// # Errors
    /// If the kernel does not delete it.
    pub fn delete(&self, tuple: &Tuple) -> Result<bool> {
        let request = ConntrackMessage::Delete(vec![tuple.attribute()]);
        match self.nfnetlink.request(Some(tuple.family()), request, |_| {}) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(self.error(&format!("delete the conntrack entry {tuple}"), e)),
        }
    }

    /// Deletes the entries that `is_stale` accepts, as `conntrack -D` deletes those
    /// that match its options: it lists the table and deletes one after the other.
    /// Returns how many were deleted.
    ///
    /// # Errors
    /// If the kernel does not list them, or does not delete one.
    pub fn delete_where(&self, is_stale: impl Fn(&Entry) -> bool) -> Result<usize> {
        let mut deleted = 0;
        for entry in self.entries()?.iter().filter(|entry| is_stale(entry)) {
            deleted += usize::from(self.delete(&entry.original)?);
        }
        Ok(deleted)
    }

    /// Deletes all entries.
    ///
    /// # Errors
    /// If the kernel does not delete them.
    pub fn flush(&self) -> Result<()> {
        self.nfnetlink
            .request(None, ConntrackMessage::Delete(vec![]), |_| {})
            .map_err(|e| self.error("flush the conntrack table", e))
    }

    /// The counters so far, summed over the CPUs.
    ///
    /// # Errors
    /// If the kernel does not report them.
    pub fn stats(&self) -> Result<Stats> {
        self.read_stats().map_err(|e| self.error("read the conntrack statistics", e))
    }

    fn read_stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        self.nfnetlink.dump(None, Stats::request(), |message| stats.add(&message))?;
        Ok(stats)
    }

    fn error(&self, tried: &str, error: io::Error) -> Error {
        Error::kernel(self.nfnetlink.place(), tried, error)
    }
}
