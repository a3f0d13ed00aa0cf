//! Durations in human-readable form.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Examples of the durations that [`parse`] takes.
pub const EXAMPLES: &str = "90, 15min, 1.5h or \"2d 12h\"";

/// Parses a number of seconds, or numbers with units: `90`, `15min`, `1.5h`, `2d 12h`.
/// `None` if the text is not a duration.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let has_no_unit = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    humantime::parse_duration(&format!("{text}{}", if has_no_unit { "s" } else { "" })).ok()
}

/// As [`parse`], in seconds; `None` if it is not a whole number of them.
#[must_use]
pub fn parse_whole(text: &str) -> Option<u64> {
    parse(text).filter(|duration| duration.subsec_nanos() == 0).map(|duration| duration.as_secs())
}

/// A duration in its largest unit, rounded to a tenth: `90 s`, `15 minutes`, `5 days`,
/// `24.9 days`.
#[must_use]
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, name) = match seconds {
        HOUR => return "an hour".to_owned(),
        DAY => return "a day".to_owned(),
        _ if seconds < 2 * MINUTE => return format!("{seconds} s"),
        _ if seconds < HOUR => (MINUTE, "minutes"),
        _ if seconds < DAY => (HOUR, "hours"),
        _ => (DAY, "days"),
    };
    let tenths = (10 * seconds + unit / 2) / unit;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_a_plain_number_is_seconds() {
        for (text, seconds) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("15min", Some(900)),
            ("15m", Some(900)),
            ("2h", Some(7200)),
            ("1h 30min", Some(5400)),
            ("5d", Some(432_000)),
            ("5days", Some(432_000)),
            ("1.5h", Some(5400)),
            ("2d 12h", Some(216_000)),
            ("1500ms", None),
            ("-5", None),
            ("", None),
            ("soon", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(parse_whole(text), seconds, "{text:?}");
        }
        for text in ["1500ms", "1.5", "1.5s"] {
            assert_eq!(parse(text), Some(Duration::from_millis(1500)), "{text:?}");
        }
    }

    #[test]
    fn a_sentence_has_the_largest_unit() {
        for (seconds, words) in [
            (0, "0 s"),
            (90, "90 s"),
            (900, "15 minutes"),
            (3600, "an hour"),
            (7875, "2.2 hours"),
            (86_400, "a day"),
            (432_000, "5 days"),
            (2_147_483, "24.9 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
