//! What the probes of a network record about themselves: the address they tried
//! to reach, the time and the result. It lets a capture attribute packets to
//! probes.
//!
//! A probe gets its id when it starts. Its result carries the id, so the row that
//! reports it is found without comparing text.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use crate::capture::{Act, Probe};
use crate::packet::clock;

/// The records of one network's probes, in the order in which they began.
#[derive(Debug, Default)]
pub struct Journal {
    probes: RefCell<Vec<Probe>>,
}

/// Identifies a probe of a network, by its position in the order in which they
/// began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeId(usize);

/// A record in progress: the probe is under way.
#[derive(Debug)]
#[must_use = "a probe without a result looks abandoned"]
pub struct RunningProbe {
    journal: Rc<Journal>,
    id: ProbeId,
}

/// A probe's result, with the probe's id.
///
/// It dereferences to the result. It does not implement `Display`, so that no row
/// loses the probe by accident: use [`Observed`] for a row, and `*met` for text.
#[derive(Debug, Clone, Copy)]
pub struct ProbeResult<T> {
    value: T,
    probe: ProbeId,
}

/// A value that a row can be made from: anything displayable, or a probe's
/// result.
pub trait Observed {
    /// The cell of the row, and the probe that it reports.
    fn observed(self) -> (String, Option<ProbeId>);
}

impl<T: fmt::Display> Observed for T {
    fn observed(self) -> (String, Option<ProbeId>) {
        (self.to_string(), None)
    }
}

impl<T: fmt::Display> Observed for ProbeResult<T> {
    fn observed(self) -> (String, Option<ProbeId>) {
        (&self).observed()
    }
}

impl<T: fmt::Display> Observed for &ProbeResult<T> {
    fn observed(self) -> (String, Option<ProbeId>) {
        (self.value.to_string(), Some(self.probe))
    }
}

impl<T> ProbeResult<T> {
    /// The probe with this result.
    #[must_use]
    pub fn probe(&self) -> ProbeId {
        self.probe
    }

    /// The result, without the probe.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for ProbeResult<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq<T> for ProbeResult<T> {
    fn eq(&self, other: &T) -> bool {
        self.value == *other
    }
}

impl Journal {
    /// Begins the record of a probe at a host. A capture finds the packets by
    /// `remote`.
    pub fn begin(self: &Rc<Self>, host: &str, act: Act, remote: SocketAddr) -> RunningProbe {
        let mut probes = self.probes.borrow_mut();
        let (host, at) = (host.to_owned(), clock::now());
        probes.push(Probe { at, host: host.into(), act, local: None, remote, met: None, row: None });
        RunningProbe { journal: Rc::clone(self), id: ProbeId(probes.len() - 1) }
    }

    /// Records that a row reports a probe. The first such row is its row.
    pub fn told(&self, probe: ProbeId, row: &str) {
        if let Some(probe) = self.probes.borrow_mut().get_mut(probe.0) {
            probe.row.get_or_insert_with(|| row.into());
        }
    }

    /// The records, with their times relative to `begun` on the kernel's clock.
    pub fn since(&self, begun: Duration) -> Vec<Probe> {
        let counted = |probe: &Probe| Probe { at: probe.at.saturating_sub(begun), ..probe.clone() };
        self.probes.borrow().iter().map(counted).collect()
    }
}

impl RunningProbe {
    /// Records the probe's local address.
    pub fn local(&self, address: Option<SocketAddr>) {
        self.journal.probes.borrow_mut()[self.id.0].local = address;
    }

    /// Records the probe's result, and returns it with the probe's id.
    pub fn met<T: fmt::Display>(self, value: T) -> ProbeResult<T> {
        self.journal.probes.borrow_mut()[self.id.0].met = Some(value.to_string().into());
        ProbeResult { value, probe: self.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(journal: &Rc<Journal>, met: &'static str) -> ProbeResult<&'static str> {
        journal.begin("a", Act::Speaks, ([192, 0, 2, 2], 80).into()).met(met)
    }

    #[test]
    fn a_row_tells_of_the_probe_that_it_is_observed_from() {
        let journal = Rc::new(Journal::default());
        // Equal texts must not be mistaken for each other.
        let [first, second, _] = ["reset"; 3].map(|met| tried(&journal, met));
        let see = |row: &str, (cell, probe): (String, Option<ProbeId>)| {
            assert_eq!(cell, "reset");
            if let Some(probe) = probe {
                journal.told(probe, row);
            }
        };
        see("one", second.observed());
        see("words", "reset".observed());
        see("other", (&first).observed());
        // Another row may report it too.
        journal.told(second.probe(), "again");
        let rows: Vec<_> = journal.since(Duration::ZERO).into_iter().map(|probe| probe.row).collect();
        assert_eq!(rows, [Some("other".into()), Some("one".into()), None]);
    }
}
