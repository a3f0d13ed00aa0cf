//! The settings of a scenario.

use super::Clock;

/// The key of [`Setting::family`].
pub(super) const FAMILY: &str = "family";

/// A setting that `--set` can change.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// A description, for `show`.
    pub about: &'static str,
    /// The permitted values.
    pub values: Values,
}

/// The values of a setting.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
    /// A whole number with a unit.
    Number {
        /// The unit, in the plural.
        unit: &'static str,
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
        /// The default on a real clock ([`Clock::Real`]), short enough to wait for.
        short: u64,
        /// The default in virtual time ([`Clock::Virtual`]): the kernel's own.
        real: u64,
    },
}

impl Setting {
    /// A number of seconds; the default is `short` on a real clock and `real` in
    /// virtual time.
    #[must_use]
    pub const fn seconds(key: &'static str, about: &'static str, short: u64, real: u64) -> Self {
        Self { key, about, values: Values::Number { unit: "seconds", least: 1, most: real, short, real } }
    }

    /// A number from 1 to `most` of a unit; the default is `short` on a real clock
    /// and `real` in virtual time.
    #[must_use]
    pub const fn number(
        key: &'static str,
        about: &'static str,
        unit: &'static str,
        most: u64,
        [short, real]: [u64; 2],
    ) -> Self {
        Self { key, about, values: Values::Number { unit, least: 1, most, short, real } }
    }

    /// The address family of the network, for a scenario whose cause does not depend
    /// on it. [`Environment::family`](super::Environment::family) returns the chosen one.
    #[must_use]
    pub const fn family() -> Self {
        Self {
            key: FAMILY,
            about: "the address family of the network",
            values: Values::Choice(&["ipv4", "ipv6"]),
        }
    }

    /// The default for a clock.
    #[must_use]
    pub fn default(&self, clock: Clock) -> String {
        match (self.values, clock) {
            (Values::Choice(words), _) => words[0].to_owned(),
            (Values::Number { short, .. }, Clock::Real) => short.to_string(),
            (Values::Number { real, .. }, Clock::Virtual) => real.to_string(),
        }
    }

    /// Checks a value from the command line.
    ///
    /// # Errors
    /// One sentence that lists the words or the range.
    pub fn check(&self, value: &str) -> std::result::Result<(), String> {
        match self.values {
            Values::Choice(words) if words.contains(&value) => Ok(()),
            Values::Choice(words) => {
                Err(format!("{} is one of {}, not {value:?} ({})", self.key, words.join(", "), self.about))
            }
            Values::Number { unit, least, most, .. } => match value.parse::<u64>() {
                Ok(n) if (least..=most).contains(&n) => Ok(()),
                _ => Err(format!("{} is a number of {unit} from {least} to {most}, not {value:?}", self.key)),
            },
        }
    }
}
