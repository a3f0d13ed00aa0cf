//! One reader of the kernel's log for all arms of a worker.

use std::cell::RefCell;

use super::kernel_log::{KernelLog, Record};
use faultlab_base::error::Result;

/// How many lines of the log an outcome has.
const LINES: usize = 200;

/// The kernel's log as all arms of a worker share it: one reader, and what it
/// has read so far.
#[derive(Debug, Default)]
pub struct SharedLog {
    reader: Option<RefCell<KernelLog>>,
    records: RefCell<Vec<Record>>,
}

impl SharedLog {
    /// Shares a reader; without one nothing can be seen.
    #[must_use]
    pub fn new(reader: Option<KernelLog>) -> Self {
        Self { reader: reader.map(RefCell::new), records: RefCell::default() }
    }

    /// Whether the log can be read.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.reader.is_some()
    }

    /// The first record since this worker began that `wanted` accepts.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
    pub fn find<T>(&self, wanted: impl Fn(&Record) -> Option<T>) -> Result<Option<T>> {
        self.find_since(0, wanted)
    }

    /// How many records there were until now.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
    pub(crate) fn count(&self) -> Result<usize> {
        if let Some(reader) = &self.reader {
            self.records.borrow_mut().extend(reader.borrow_mut().take()?);
        }
        Ok(self.records.borrow().len())
    }

    /// The last records after the first `count`, as dmesg shows them, but for
    /// those of the wires' own sockets; or why there are none to be seen.
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

    /// The different complaints of the kernel about networks since then. One
    /// about a device is left out where the device is `none_of_ours`.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
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

    /// The first record since then that `wanted` accepts.
    ///
    /// # Errors
    /// Where the kernel log fails while it is read.
    pub(crate) fn find_since<T>(
        &self,
        count: usize,
        wanted: impl Fn(&Record) -> Option<T>,
    ) -> Result<Option<T>> {
        self.count()?;
        Ok(self.records.borrow()[count..].iter().find_map(wanted))
    }
}
