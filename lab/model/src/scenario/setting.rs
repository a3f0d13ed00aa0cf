//! The settings of a scenario, which `--set` changes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::seconds::{self, in_words};
use super::{Clock, Limit};

/// The key of [`Setting::family`].
pub(super) const FAMILY: &str = "family";

/// The unit of durations, which accept a suffix such as `min`.
const SECONDS: &str = "seconds";

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
    Number(Number),
}

/// The range and the defaults of a number.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// The unit, in the plural.
    pub unit: &'static str,
    /// The smallest value.
    pub least: u64,
    /// The largest value.
    pub limit: Limit,
    /// The default on a real clock ([`Clock::Real`]), short enough to wait for.
    pub short: u64,
    /// The default in virtual time ([`Clock::Virtual`]): as a rule the kernel's default.
    pub real: u64,
    /// Another setting that determines the default if it is given.
    pub follows: Option<Follows>,
}

/// A default that depends on another setting.
#[derive(Debug, Clone, Copy)]
pub struct Follows {
    /// The key of the other setting.
    pub key: &'static str,
    /// The default, computed from the value of the other setting.
    pub default: fn(u64) -> u64,
}

impl Setting {
    /// A duration in seconds, from 1 to [a year](Limit::YEAR); the default is `short`
    /// on a real clock and `real` in virtual time.
    #[must_use]
    pub const fn seconds(key: &'static str, about: &'static str, short: u64, real: u64) -> Self {
        Self::number(key, about, SECONDS, Limit::YEAR, [short, real])
    }

    /// A number of a unit from 1 to a limit; the default is `short` on a real clock
    /// and `real` in virtual time.
    #[must_use]
    pub const fn number(
        key: &'static str,
        about: &'static str,
        unit: &'static str,
        limit: Limit,
        [short, real]: [u64; 2],
    ) -> Self {
        Self {
            key,
            about,
            values: Values::Number(Number { unit, least: 1, limit, short, real, follows: None }),
        }
    }

    /// Sets the largest value of a number.
    #[must_use]
    pub const fn at_most(mut self, limit: Limit) -> Self {
        if let Values::Number(number) = &mut self.values {
            number.limit = limit;
        }
        self
    }

    /// Computes the default of a number from another setting of the scenario, if that one
    /// is given.
    #[must_use]
    pub const fn following(mut self, key: &'static str, default: fn(u64) -> u64) -> Self {
        if let Values::Number(number) = &mut self.values {
            number.follows = Some(Follows { key, default });
        }
        self
    }

    /// The address family of the network, for a scenario that works with both.
    /// [`Environment::family`](super::Environment::family) returns its value.
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
            (Values::Number(number), Clock::Real) => number.short.to_string(),
            (Values::Number(number), Clock::Virtual) => number.real.to_string(),
        }
    }

    /// The value: the one in `given`, or the default, which may depend on another setting in
    /// `given`.
    pub(super) fn value(&self, clock: Clock, given: &BTreeMap<String, String>) -> String {
        let follows = || match self.values {
            Values::Number(Number { follows: Some(follows), limit, .. }) => {
                let other = given.get(follows.key)?.parse().ok()?;
                Some((follows.default)(other).min(limit.most).to_string())
            }
            _ => None,
        };
        given.get(self.key).cloned().or_else(follows).unwrap_or_else(|| self.default(clock))
    }

    /// Whether this value is a number other than the default, for which no reviewed outcome
    /// exists. A choice never counts: each of its words either selects an era, or does not
    /// change the outcome.
    #[must_use]
    pub fn is_other_number(&self, clock: Clock, value: &str) -> bool {
        matches!(self.values, Values::Number(_)) && value != self.default(clock)
    }

    /// Parses a value of `--set` and returns it in the form that an outcome lists. A
    /// duration may have a unit: `15min` becomes `900`.
    ///
    /// # Errors
    /// One sentence that lists the permitted words, or gives the range and its reason.
    pub fn parse(&self, value: &str) -> Result<String, String> {
        match self.values {
            Values::Choice(words) if words.contains(&value) => Ok(value.to_owned()),
            Values::Choice(words) => {
                Err(format!("{} is one of {}, not {value:?} ({})", self.key, words.join(", "), self.about))
            }
            Values::Number(number) => number.parse(value).map_err(|is| format!("{} {is}", self.key)),
        }
    }
}

impl Number {
    fn parse(&self, value: &str) -> Result<String, String> {
        let is_duration = self.unit == SECONDS;
        let read = if is_duration { seconds::parse_whole(value) } else { value.parse().ok() };
        let range = self.range();
        match read {
            Some(number) if number < self.least => Err(format!("is {range}, not {value:?}")),
            Some(number) if number > self.limit.most => {
                Err(format!("is {range}, not {value:?}: {}", self.limit.why))
            }
            Some(number) => Ok(number.to_string()),
            None if is_duration => Err(format!("is {range}, as {}, not {value:?}", seconds::EXAMPLES)),
            None => Err(format!("is {range}, not {value:?}")),
        }
    }

    /// The range: `from 1 to 2147483 seconds (24.9 days)`.
    #[must_use]
    pub fn range(&self) -> String {
        let Self { unit, least, limit: Limit { most, .. }, .. } = self;
        let in_words = match in_words(Duration::from_secs(*most)) {
            words if *unit == SECONDS && *most >= 120 => format!(" ({words})"),
            _ => String::new(),
        };
        format!("from {least} to {most} {unit}{in_words}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Setting = Setting::seconds("timeout", "", 4, 432_000).at_most(Limit::JIFFIES);
    const PAUSE: Setting =
        Setting::seconds("pause", "", 5, 432_001).following("timeout", |timeout| timeout + 1);

    #[test]
    fn what_the_kernel_takes_is_taken_and_the_rest_is_refused_with_the_reason() {
        for (value, seconds) in [("1", "1"), ("15min", "900"), ("5d", "432000"), ("2147483", "2147483")] {
            assert_eq!(TIMEOUT.parse(value), Ok(seconds.to_owned()));
        }
        assert_eq!(
            TIMEOUT.parse("30d").unwrap_err(),
            "timeout is from 1 to 2147483 seconds (24.9 days), not \"30d\": the kernel keeps it as \
             jiffies in an int, up to 1000 of them a second"
        );
        assert_eq!(
            TIMEOUT.parse("soon").unwrap_err(),
            "timeout is from 1 to 2147483 seconds (24.9 days), as 90, 15min, 1.5h or \"2d 12h\", not \"soon\""
        );
        assert!(TIMEOUT.parse("0").is_err());
        let probes = Setting::number("probes", "", "probes", Limit::BYTE, [3, 9]);
        assert_eq!(probes.parse("255"), Ok("255".to_owned()));
        assert_eq!(
            probes.parse("256").unwrap_err(),
            "probes is from 1 to 255 probes, not \"256\": the kernel keeps it in a byte"
        );
        assert!(probes.parse("5d").is_err());
    }

    #[test]
    fn a_default_follows_another_setting_only_where_that_is_given() {
        let given = |pairs: &[(&str, &str)]| {
            let given = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            PAUSE.value(Clock::Real, &given)
        };
        assert_eq!(given(&[]), "5");
        assert_eq!(given(&[("timeout", "900")]), "901");
        assert_eq!(given(&[("timeout", "900"), ("pause", "30")]), "30");
    }

    #[test]
    fn only_other_numbers_have_no_reviewed_outcome() {
        assert!(!TIMEOUT.is_other_number(Clock::Real, "4"));
        assert!(TIMEOUT.is_other_number(Clock::Real, "432000"));
        assert!(!Setting::family().is_other_number(Clock::Real, "ipv6"));
    }
}
