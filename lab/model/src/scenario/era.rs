//! A range of kernels that behave alike, and what they show.

use super::Ground;

/// What an era of kernels does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The fault arm differs from the control.
    Reproduced,
    /// It does not.
    Immune,
}

/// A range of kernels that behave alike.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    /// The name in `snapshots/<scenario>@<era>.snap`.
    pub name: &'static str,
    /// The kernels, in words.
    pub kernels: &'static str,
    /// The commit or reason that ended the era before.
    pub since: &'static str,
    /// What is expected of it.
    pub shows: Shows,
    /// A feature first, a version where no feature tells.
    pub recognise: fn(&Ground) -> bool,
}

impl Era {
    /// The kernels, in words and by a test, on which the fault is reproduced.
    #[must_use]
    pub const fn new(name: &'static str, kernels: &'static str, recognise: fn(&Ground) -> bool) -> Self {
        Self { name, kernels, since: "", shows: Shows::Reproduced, recognise }
    }

    /// The only era of a fault that every kernel shows, and why that is so.
    #[must_use]
    pub const fn every_kernel(since: &'static str) -> Self {
        Self::new("every-kernel", "every kernel, today's too", |_| true).since(since)
    }

    /// The commit or reason that ended the era before.
    #[must_use]
    pub const fn since(mut self, since: &'static str) -> Self {
        self.since = since;
        self
    }

    /// The kernels do not show the fault.
    #[must_use]
    pub const fn immune(mut self) -> Self {
        self.shows = Shows::Immune;
        self
    }
}
