//! Eras: ranges of kernels that behave alike.

use super::Environment;

/// The expected result on the kernels of an era.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The fault arm differs from the control.
    Reproduced,
    /// The fault arm does not differ.
    Immune,
}

/// A range of kernels that behave alike.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    /// The name in `snapshots/<scenario>@<era>.snap`.
    pub name: &'static str,
    /// The kernels, in prose.
    pub kernels: &'static str,
    /// The commit or reason that ended the previous era.
    pub since: &'static str,
    /// The expected result.
    pub shows: Shows,
    /// Whether a kernel belongs to the era: a test for a feature, or for a version if no
    /// feature distinguishes it.
    pub recognise: fn(&Environment) -> bool,
    /// Whether the scenario never ran on such a kernel. Then there is no reviewed
    /// outcome, and one is judged by difference alone.
    pub not_run: bool,
}

impl Era {
    /// An era whose kernels reproduce the fault.
    #[must_use]
    pub const fn new(name: &'static str, kernels: &'static str, recognise: fn(&Environment) -> bool) -> Self {
        Self { name, kernels, since: "", shows: Shows::Reproduced, recognise, not_run: false }
    }

    /// The only era of a fault that every kernel shows; `since` says why every kernel does.
    #[must_use]
    pub const fn every_kernel(since: &'static str) -> Self {
        Self::new("every-kernel", "every kernel, today's too", |_| true).since(since)
    }

    /// Sets the commit or reason that ended the previous era.
    #[must_use]
    pub const fn since(mut self, since: &'static str) -> Self {
        self.since = since;
        self
    }

    /// Makes the era immune: its kernels do not show the fault.
    #[must_use]
    pub const fn immune(mut self) -> Self {
        self.shows = Shows::Immune;
        self
    }

    /// Says that the scenario never ran on a kernel of this era.
    #[must_use]
    pub const fn not_run(mut self) -> Self {
        self.not_run = true;
        self
    }
}
