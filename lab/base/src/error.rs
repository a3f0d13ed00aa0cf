//! What can go wrong in the lab itself.
//!
//! An error says where, what was tried, and what came back. A fault that a
//! scenario provokes is never an error: it is an observation.

use std::fmt;
use std::io;
use std::time::Duration;

/// The result of an operation of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the lab could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a netlink request failed.
    #[error("{place}: {tried}: {source}")]
    Kernel {
        /// The host, router or link, in the topology's words.
        place: String,
        /// What was asked of the kernel.
        tried: String,
        /// What it answered.
        source: io::Error,
    },
    /// The kernel, or this process, lacks something that is named.
    #[error("{0}")]
    Missing(Missing),
    /// A condition did not come true in time.
    #[error("{place}: waited {} s for {condition}", .waited.as_secs_f32())]
    Deadline {
        /// The host, router or link, in the topology's words.
        place: String,
        /// The condition.
        condition: String,
        /// How long it was waited for, on the machine's clock.
        waited: Duration,
    },
    /// The lab broke a promise of its own.
    #[error("{0}")]
    Lab(String),
}

/// A named thing that a scenario needs and that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The thing, in the kernel's spelling: a sysctl, a CONFIG name, a privilege.
    pub what: String,
    /// How to get it, a clause without a full stop.
    pub way_out: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing", self.what)?;
        if !self.way_out.is_empty() {
            write!(f, "; {}", self.way_out)?;
        }
        Ok(())
    }
}

impl Error {
    /// A failed request to the kernel at `place`.
    pub fn kernel(place: impl Into<String>, tried: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { place: place.into(), tried: tried.into(), source: source.into() }
    }

    /// A named thing that is not here, and how to get it.
    pub fn missing(what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::Missing(Missing { what: what.into(), way_out: way_out.into() })
    }

    /// The errno of a kernel's answer, if this is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
