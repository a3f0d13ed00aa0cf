//! Parses and formats time limits.

use std::time::Duration;

/// The units, in seconds.
const UNITS: [(&str, f64); 8] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("sec", 1.0),
    ("min", 60.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("", 1.0),
];
/// The longest limit, ten years, in seconds.
const MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// Parses a number with a unit: `90s`, `5min`, `1.5h`, `7d`. Without a unit it is seconds.
///
/// # Errors
/// A sentence that gives the syntax.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, seconds)| *seconds);
    let seconds = number.parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
    match seconds.filter(|seconds| (0.001..=MAX).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err("a time is a number and a unit, up to ten years: 90s, 5min, 2h, 7d".to_owned()),
    }
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
            ("7d", 604_800_000, "7 d"),
            ("10", 10_000, "10 s"),
            ("20ms", 20, "0.02 s"),
        ] {
            let time = parse(text).unwrap();
            assert_eq!((time, shown(time).as_str()), (Duration::from_millis(milliseconds), again));
        }
        for wrong in ["", "s", "5 weeks", "-1s", "0s", "1e9d", "99999d", "1.2.3s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
