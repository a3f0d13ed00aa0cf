//! The kernel under test: its release and its features.

use std::path::PathBuf;

use crate::namespace::of_this_thread;

/// A running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The output of `uname -r`.
    pub release: String,
    /// The builder's description: `uname -v`, and Ubuntu's
    /// /proc/version_signature.
    build: String,
    /// The counters in its /proc/net/netstat.
    counters: Vec<String>,
}

impl Kernel {
    /// The kernel under this process.
    #[must_use]
    pub fn running() -> Self {
        let (release, mut build) = nix::sys::utsname::uname()
            .map(|name| {
                [name.release(), name.version()].map(|text| text.to_string_lossy().into_owned()).into()
            })
            .unwrap_or_default();
        build.push(' ');
        build.push_str(&std::fs::read_to_string("/proc/version_signature").unwrap_or_default());
        let netstat = std::fs::read_to_string(of_this_thread("net/netstat")).unwrap_or_default();
        let counters = netstat.split_whitespace().filter(|w| !w.ends_with(':')).map(str::to_owned).collect();
        Self { release, build, counters }
    }

    /// Major and minor version; `(0, 0)` if the release does not have them.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        version_of(&self.release)
    }

    /// Whether its version is at least this one.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version() >= (major, minor)
    }

    /// Major, minor and patch level of the stable release that it was built from.
    /// Distributions whose release is an ABI name (Debian's 5.10.0-46 is
    /// 5.10.262) have it in the builder's description.
    #[must_use]
    pub fn stable(&self) -> (u32, u32, u32) {
        let (major, minor) = self.version();
        let said = self.build.split([' ', '\n']).filter(|word| version_of(word) == (major, minor));
        let levels = said.chain([self.release.as_str()]).map(|word| release_of(word).2);
        (major, minor, levels.max().unwrap_or(0))
    }

    /// Whether it was built from a release that contains a commit. `releases`
    /// lists the first release of each stable series with the commit, and last
    /// the first mainline release (`"6.12.59 6.17.9 6.18"`). Backports by
    /// distributions are not known.
    #[must_use]
    pub fn carries(&self, releases: &str) -> bool {
        let stable = self.stable();
        let mut firsts: Vec<_> = releases.split(' ').map(release_of).collect();
        firsts.pop().is_some_and(|mainline| stable >= mainline)
            || firsts.iter().any(|first| (first.0, first.1) == (stable.0, stable.1) && stable >= *first)
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

/// Major and minor version of a release; `(0, 0)` if it does not have them.
#[must_use]
pub fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Like `version_of`, with the patch level after another dot; 7.2-rc1 has none.
fn release_of(release: &str) -> (u32, u32, u32) {
    let (major, minor) = version_of(release);
    let third = release.splitn(3, '.').nth(2).unwrap_or_default();
    let digits = third.split(|c: char| !c.is_ascii_digit()).next();
    (major, minor, digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
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
            let kernel = Kernel { release: release.into(), build: String::new(), counters: vec![] };
            assert_eq!(kernel.version(), version, "{release}");
        }
        let old = Kernel { release: "4.11.12".into(), build: String::new(), counters: vec![] };
        assert!(old.at_least(4, 11) && !old.at_least(4, 12) && old.at_least(3, 99));
    }

    #[test]
    fn stable_releases_behind_the_names_of_distributions() {
        for (release, build, stable) in [
            ("5.10.0-46-cloud-amd64", "#1 SMP Debian 5.10.262-1 (2026-10-12)", (5, 10, 262)),
            ("6.12.57+deb12-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1~bpo12+1", (6, 12, 57)),
            (
                "5.15.0-91-generic",
                "#101-Ubuntu SMP Tue Nov 14\nUbuntu 5.15.0-91.101-generic 5.15.131",
                (5, 15, 131),
            ),
            ("4.9.337", "#1 SMP Sat Nov 21 11:00:00 UTC 2026", (4, 9, 337)),
            ("3.10.0-1160.el7.x86_64", "#1 SMP Mon Oct 19 2020", (3, 10, 0)),
            ("7.2-rc1", "", (7, 2, 0)),
            ("", "", (0, 0, 0)),
        ] {
            let kernel = Kernel { release: release.into(), build: build.into(), counters: vec![] };
            assert_eq!(kernel.stable(), stable, "{release}");
        }
    }

    #[test]
    fn a_commit_is_in_the_mainline_and_in_stable_series() {
        for (release, carries) in [
            ("5.4.301", false),
            ("5.4.302", true),
            ("5.9.16", false),
            ("6.12.58+deb13-amd64", false),
            ("6.12.59", true),
            ("6.17.13", false),
            ("6.18-rc1", true),
            ("7.2.13", true),
        ] {
            let kernel = Kernel { release: release.into(), build: String::new(), counters: vec![] };
            assert_eq!(kernel.carries("5.4.302 6.12.59 6.18"), carries, "{release}");
        }
    }
}
