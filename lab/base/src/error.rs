//! The errors of the lab.
//!
//! An error names the place, the operation and the cause. A fault that a scenario
//! provokes is an observation, not an error.

use std::time::Duration;
use std::{fmt, io};

use nix::libc;

/// The result of a lab operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lab operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a netlink request failed.
    #[error("{place}: {tried}: {source}")]
    Kernel {
        /// The host, router or link, as the topology names it.
        place: String,
        /// What was requested of the kernel.
        tried: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel lacks a feature, or this process a privilege or a program.
    #[error("{0}")]
    Missing(Missing),
    /// A shared resource of the machine is used up: memory, descriptors,
    /// processes, namespaces. This says nothing about the kernel or the scenario.
    #[error("{0}")]
    Exhausted(String),
    /// A condition was not met in time.
    #[error("{place}: waited {} s for {condition}", .waited.as_secs_f32())]
    Deadline {
        /// The host, router or link, as the topology names it.
        place: String,
        /// The condition.
        condition: String,
        /// How long the lab waited, on the machine's clock.
        waited: Duration,
    },
    /// Any other failure, such as a wrong use of the lab or a broken invariant.
    #[error("{0}")]
    Lab(String),
}

/// Something that a scenario needs and that is not available, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, as the kernel spells it: a sysctl, a CONFIG name, a
    /// privilege.
    pub what: String,
    /// How to get it: a clause without a full stop.
    pub advice: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing", self.what)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl Error {
    /// A failed system call or netlink request: [`Error::Exhausted`] if the errno
    /// means that a resource is used up, otherwise [`Error::Kernel`].
    pub fn kernel(place: impl Into<String>, tried: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (place, tried, source) = (place.into(), tried.into(), source.into());
        match exhausted(&tried, &source) {
            Some(advice) => Self::Exhausted(format!("{place}: {tried}: {source}; {advice}")),
            None => Self::Kernel { place, tried, source },
        }
    }

    /// An [`Error::Missing`].
    pub fn missing(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Missing(Missing { what: what.into(), advice: advice.into() })
    }

    /// The errno of an [`Error::Kernel`]; `None` for any other error.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// The advice for an errno that means that a resource is used up; `None` for any
/// other errno.
fn exhausted(tried: &str, source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error()? {
        libc::EMFILE => Some(
            "this process may not open more files: raise the hard limit (ulimit -Hn), or run fewer \
             scenarios at once (--jobs)",
        ),
        libc::ENFILE => Some("the machine may not open more files: raise fs.file-max, or close some"),
        libc::ENOMEM => Some(
            "the kernel has no memory for it: free some, raise the limit of the cgroup (memory.max), or run \
             fewer scenarios at once (--jobs)",
        ),
        libc::EAGAIN => Some(
            "the limit of processes or of locked memory is reached: raise it (ulimit -u, ulimit -l, pids.max \
             of the cgroup), or run fewer scenarios at once (--jobs)",
        ),
        // For other requests, ENOSPC means that a disk is full.
        libc::ENOSPC if tried.contains("unshare") => Some(
            "the limit of namespaces is reached: raise user.max_user_namespaces, user.max_net_namespaces and \
             their like, or run fewer scenarios at once (--jobs)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_is_neither_missing_nor_an_answer() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN] {
            let error = Error::kernel("router", "socket", io::Error::from_raw_os_error(errno));
            assert!(
                matches!(&error, Error::Exhausted(told) if told.starts_with("router: socket: ")),
                "{error}"
            );
        }
        let full = |tried: &str| Error::kernel("router", tried, io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(full("unshare(CLONE_NEWNET)"), Error::Exhausted(_)));
        assert!(matches!(full("write a file"), Error::Kernel { .. }));
    }
}
