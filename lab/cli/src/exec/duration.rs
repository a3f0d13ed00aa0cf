//! Parses and formats time limits.

use std::time::Duration;

use faultlab_model::scenario::seconds;

/// The longest limit: ten years.
const MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Parses a time limit as a duration of `run --set`: `90s`, `1.5h`, `2d 12h`. Without a unit
/// it is seconds.
///
/// # Errors
/// A sentence that gives the syntax.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    seconds::parse(text)
        .filter(|time| (Duration::from_millis(1)..=MAX).contains(time))
        .ok_or_else(|| format!("a time is seconds, or has units, up to ten years: {}", seconds::EXAMPLES))
}

/// A limit in the largest unit of which it is a whole number, or in seconds.
pub(super) fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (name, unit) = [("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)]
        .into_iter()
        .find(|(_, unit)| seconds >= *unit && (seconds / unit).fract() == 0.0)
        .unwrap_or(("s", 1.0));
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, milliseconds, again) in [
            ("90s", 90_000, "90 s"),
            ("5min", 300_000, "5 min"),
            ("1.5h", 5_400_000, "90 min"),
            ("1h 30min", 5_400_000, "90 min"),
            ("2days", 172_800_000, "2 d"),
            ("7d", 604_800_000, "7 d"),
            ("10", 10_000, "10 s"),
            ("20ms", 20, "0.02 s"),
        ] {
            let time = parse(text).unwrap();
            assert_eq!((time, shown(time).as_str()), (Duration::from_millis(milliseconds), again));
        }
        for wrong in ["", "s", "5 fortnights", "-1s", "0s", "1e9d", "9999d", "1.2.3s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
