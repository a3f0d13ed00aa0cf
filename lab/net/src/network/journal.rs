//! What the probes of a network note of themselves: whom they tried to reach,
//! when, and what that met. With it a capture can say which of its packets are
//! theirs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::capture::{Act, Probe};
use crate::packet::clock;

/// The notes of one network's probes, in the order in which they began.
#[derive(Debug, Default)]
pub struct Journal {
    probes: RefCell<Vec<Probe>>,
    /// How many of them began before the last row was seen.
    told: Cell<usize>,
}

/// A note that is being written: the probe is under way.
#[derive(Debug)]
#[must_use = "a probe is told what it met"]
pub struct Noted {
    journal: Rc<Journal>,
    number: usize,
}

impl Journal {
    /// Begins the note of a probe of a host's, that has to do with `remote`: with it
    /// a capture finds the packets.
    pub fn begin(self: &Rc<Self>, host: &str, act: Act, remote: SocketAddr) -> Noted {
        let mut probes = self.probes.borrow_mut();
        let (host, at) = (host.to_owned(), clock::now());
        probes.push(Probe { at, host, act, local: None, remote, met: None, row: None });
        Noted { journal: Rc::clone(self), number: probes.len() - 1 }
    }

    /// Notes that a row was seen: it tells of the last probe since the row before
    /// that met what the cell says. Where none did, the row that the scenario is
    /// `judged` by tells of the last probe in words of its own, but of no
    /// [`Asks`](Act::Asks): many are behind one row.
    pub fn seen(&self, row: &str, cell: &str, judged: bool) {
        let mut probes = self.probes.borrow_mut();
        let new = &mut probes[self.told.get()..];
        let said = |probe: &Probe| probe.met.as_deref() == Some(cell);
        // Who waits afterwards meets the same once more.
        let itself = new.iter().rposition(|probe| said(probe) && probe.act != Act::Waits);
        let last = || new.iter().rposition(|probe| judged && probe.met.is_some() && probe.act != Act::Asks);
        if let Some(at) = itself.or_else(|| new.iter().rposition(said)).or_else(last) {
            new[at].row = Some(row.to_owned());
        }
        self.told.set(probes.len());
    }

    /// The notes, with their times counted from `begun` of the kernel's clock.
    pub fn since(&self, begun: Duration) -> Vec<Probe> {
        let counted = |probe: &Probe| Probe { at: probe.at.saturating_sub(begun), ..probe.clone() };
        self.probes.borrow().iter().map(counted).collect()
    }
}

impl Noted {
    /// Notes the address that the probe has at its host.
    pub fn local(&self, address: Option<SocketAddr>) {
        self.journal.probes.borrow_mut()[self.number].local = address;
    }

    /// Notes what the probe met, and gives it back.
    pub fn met<T: fmt::Display>(self, met: T) -> T {
        self.journal.probes.borrow_mut()[self.number].met = Some(met.to_string());
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells that the probes of an arm are told of in, each row of one. The
    /// row that the arm is judged by is seen with a cell in capitals.
    fn told(played: &[Result<&str, (Act, &str)>]) -> Vec<String> {
        let journal = Rc::new(Journal::default());
        for step in played {
            match *step {
                Ok(cell) => journal.seen(cell, cell, cell.to_uppercase() == cell),
                Err((act, met)) => {
                    let _ = journal.begin("a", act, ([192, 0, 2, 2], 80).into()).met(met);
                }
            }
        }
        journal.since(Duration::ZERO).into_iter().map(|probe| probe.row.unwrap_or_default()).collect()
    }

    #[test]
    fn a_row_tells_of_the_probe_that_met_its_cell() {
        let (speaks, waits, asks) =
            (|met| Err((Act::Speaks, met)), |met| Err((Act::Waits, met)), |met| Err((Act::Asks, met)));
        assert_eq!(told(&[speaks("reset"), speaks("received"), Ok("reset")]), ["reset", ""]);
        assert_eq!(
            told(&[speaks("received"), speaks("reset"), waits("reset"), Ok("reset")]),
            ["", "reset", ""]
        );
        assert_eq!(told(&[speaks("received"), waits("reset"), Ok("reset")]), ["", "reset"]);
        // Another row's cell is of other things, unless it is what all is about.
        assert_eq!(told(&[speaks("reset"), Ok("yes")]), [""]);
        assert_eq!(told(&[speaks("received"), waits("reset"), Ok("NO")]), ["", "NO"]);
        // Of many questions none is the one, unless it is told as it is.
        assert_eq!(told(&[asks("200"), Ok("NO")]), [""]);
        assert_eq!(told(&[asks("200"), Ok("200")]), ["200"]);
        // What was tried before another row was seen is not of this one.
        assert_eq!(told(&[speaks("reset"), Ok("yes"), Ok("reset")]), [""]);
    }
}
