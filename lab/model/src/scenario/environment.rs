//! The environment of a scenario: a kernel, its clock, and the settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fault;
use super::setting::FAMILY;
use faultlab_net::kernel::Kernel;
use faultlab_net::topology::Family;

/// The clock that the kernel's timers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The wall clock. Sysctls shorten timers that take minutes.
    Real,
    /// Virtual time in a guest, which jumps to the next timer when all tasks sleep.
    Virtual,
}

/// The environment of a scenario: a kernel, its clock, and the settings.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The kernel.
    pub kernel: Kernel,
    /// Its clock.
    pub clock: Clock,
    /// Every setting of the scenario with its value.
    pub settings: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of a scenario: the default settings, overridden by `set`.
    #[must_use]
    pub fn new(scenario: &Fault, kernel: Kernel, clock: Clock, set: &BTreeMap<String, String>) -> Self {
        Self { kernel, clock, settings: Self::settings_of(scenario, clock, set) }
    }

    /// The settings of a scenario: the defaults, overridden by `set`.
    #[must_use]
    pub fn settings_of(
        scenario: &Fault,
        clock: Clock,
        set: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        scenario.settings.iter().map(|s| (s.key.to_owned(), s.value(clock, set))).collect()
    }

    /// The value of a setting, as a word.
    ///
    /// # Panics
    /// When the scenario has no such setting.
    #[must_use]
    pub fn word(&self, key: &str) -> &str {
        self.settings.get(key).unwrap_or_else(|| panic!("the scenario has no setting {key:?}"))
    }

    /// The value of a setting, as a number.
    ///
    /// # Panics
    /// When the scenario has no such setting, or its value is not a number.
    #[must_use]
    pub fn number(&self, key: &str) -> u64 {
        self.word(key).parse().unwrap_or_else(|_| panic!("setting {key:?} is no number"))
    }

    /// The address family of the network: IPv4, unless the scenario has
    /// [`Setting::family`](super::Setting::family) and it is set to IPv6.
    #[must_use]
    pub fn family(&self) -> Family {
        self.settings.get(FAMILY).and_then(|word| word.parse().ok()).unwrap_or(Family::V4)
    }

    /// The value of a setting in seconds.
    ///
    /// # Panics
    /// As [`number`](Self::number).
    #[must_use]
    pub fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key))
    }
}
