//! One reader of the kernel log for all arms of a worker.

use std::cell::RefCell;

use super::kernel_log::{KernelLog, Record};
use faultlab_base::error::Result;

/// The maximum number of log lines in an outcome.
const LINES: usize = 200;

/// The kernel log, shared by all arms of a worker: one reader, and the records it has
/// read so far.
#[derive(Debug, Default)]
pub struct SharedLog {
    reader: Option<RefCell<KernelLog>>,
    records: RefCell<Vec<Record>>,
}

impl SharedLog {
    /// Shares a reader; without a reader the log is unavailable.
    #[must_use]
    pub fn new(reader: Option<KernelLog>) -> Self {
        Self { reader: reader.map(RefCell::new), records: RefCell::default() }
    }

    /// Whether the log can be read.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.reader.is_some()
    }

    /// The first record since the start of this worker that `wanted` accepts.
    ///
    /// # Errors
    /// If reading the kernel log fails.
    pub fn find<T>(&self, wanted: impl Fn(&Record) -> Option<T>) -> Result<Option<T>> {
        self.find_since(0, wanted)
    }

    /// The number of records so far.
    ///
    /// # Errors
    /// If reading the kernel log fails.
    pub(crate) fn count(&self) -> Result<usize> {
        if let Some(reader) = &self.reader {
            self.records.borrow_mut().extend(reader.borrow_mut().take()?);
        }
        Ok(self.records.borrow().len())
    }

    /// The last records after the first `count`, formatted like dmesg; or the reason
    /// why the log is unavailable. Messages about promiscuous mode, which the lab's own
    /// packet sockets cause, are left out.
    pub(crate) fn lines_since(&self, count: usize) -> Vec<String> {
        match self.count() {
            _ if self.reader.is_none() => vec!["the kernel log cannot be read here".to_owned()],
            Err(error) => vec![error.to_string()],
            Ok(now) => {
                let records = self.records.borrow();
                let others = records[count..now].iter().filter(|r| !r.text.ends_with(" promiscuous mode"));
                let mut lines: Vec<_> = others.rev().take(LINES).map(ToString::to_string).collect();
                lines.reverse();
                lines
            }
        }
    }

    /// The messages about networking after the first `count` records, without
    /// duplicates. An `unregister_netdevice` message is left out if its device is
    /// `none_of_ours`.
    ///
    /// # Errors
    /// If reading the kernel log fails.
    pub(crate) fn complaints(
        &self,
        count: usize,
        none_of_ours: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        const NETWORK: [&str; 4] =
            ["unregister_netdevice: ", "nf_conntrack: ", "blocked for more than ", "neighbour: "];
        self.count()?;
        let mut texts: Vec<String> = vec![];
        for record in &self.records.borrow()[count..] {
            let waiting = record.unregister_netdevice();
            if NETWORK.iter().any(|begin| record.text.contains(begin))
                && !waiting.as_ref().is_some_and(|waiting| none_of_ours(&waiting.device))
            {
                let text = waiting.map(|waiting| waiting.to_string());
                let text = text.or(record.conntrack_table_full()).unwrap_or_else(|| record.text.clone());
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
        Ok(texts)
    }

    /// The first record that `wanted` accepts, after the first `count`.
    ///
    /// # Errors
    /// If reading the kernel log fails.
    pub(crate) fn find_since<T>(
        &self,
        count: usize,
        wanted: impl Fn(&Record) -> Option<T>,
    ) -> Result<Option<T>> {
        self.count()?;
        Ok(self.records.borrow()[count..].iter().find_map(wanted))
    }
}
