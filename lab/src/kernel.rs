//! The kernel that a scenario meets: its release, and what it has.

use std::path::PathBuf;

use crate::network::namespace::of_this_thread;

/// A running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The counters that its /proc/net/netstat has.
    counters: Vec<String>,
}

impl Kernel {
    /// The kernel under this process.
    #[must_use]
    pub fn running() -> Self {
        let release = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let netstat = std::fs::read_to_string(of_this_thread("net/netstat")).unwrap_or_default();
        let counters = netstat.split_whitespace().filter(|w| !w.ends_with(':')).map(str::to_owned).collect();
        Self { release, counters }
    }

    /// Major and minor version, `(0, 0)` where the release does not say.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        version_of(&self.release)
    }

    /// Whether its version is at least this one.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version() >= (major, minor)
    }

    /// Whether it has a sysctl, visible in the namespace of this thread.
    #[must_use]
    pub fn has_sysctl(&self, key: &str) -> bool {
        PathBuf::from("/proc/sys").join(key.replace('.', "/")).exists()
    }

    /// Whether its /proc/net/netstat has a counter.
    #[must_use]
    pub fn has_counter(&self, name: &str) -> bool {
        self.counters.iter().any(|c| c == name)
    }
}

/// Major and minor version of a release, `(0, 0)` where it does not say.
#[must_use]
pub fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions() {
        for (release, version) in [
            ("6.12.57+deb13-cloud-amd64", (6, 12)),
            ("4.9.337", (4, 9)),
            ("3.10.0-1160.el7.x86_64", (3, 10)),
            ("7.2-rc1", (7, 2)),
            ("", (0, 0)),
        ] {
            let kernel = Kernel { release: release.into(), counters: vec![] };
            assert_eq!(kernel.version(), version, "{release}");
        }
        let old = Kernel { release: "4.11.12".into(), counters: vec![] };
        assert!(old.at_least(4, 11) && !old.at_least(4, 12) && old.at_least(3, 99));
    }
}
