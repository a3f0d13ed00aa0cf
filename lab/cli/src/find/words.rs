//! The words of a text: lower case, without their endings, and durations in one unit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

/// The most words of one text. More are ignored.
const WORDS: usize = 400;

/// The longest word, in bytes. A longer one is ignored: it is no word but data.
const LONGEST: usize = 64;

/// Words that say nothing about the subject. They count only within a phrase.
const FUNCTION_WORDS: &str = " a about after again against all also although am an and any are as at be because been before \
    being between both but by can cannot could despite did do does doing don done during each else even ever every few for from get \
    gets got had has have he her here his how i if in into is isn it its itself just know left like may me might more \
    most much must my no nor not now of off on once one only or other our out over own please same see seems she \
    should since so some still such t than that the their them then there these they thing this those though \
    through to too under until up us use used very via was wasn we were what when where which while who why will \
    with without would yes yet you your ";

/// Words of any error report, which say little about the subject.
const ORDINARY_WORDS: &str = " access address answer app application back bad begin behind call cause change check client \
    close code command come common config connect container cpu data day dead debug default delete deploy device die disk \
    end environment err errno error exception exit fail failure fault file find first fix found full go good group \
    happen head header help high host http https image info intermittent intermittently internal issue job last libc line list \
    load local log long loop machine make max maximum memory message minute name need network new next node normal \
    null number old open order other page pass path permission place point port problem process program read reach \
    ready reason receive recv refuse remote report request respond response restart result return root rule run \
    second send server service session set setting show silently slow some space start state status stop success suddenly \
    system table take task term test thing thread time timeout traffic try type unable unknown update upstream user \
    value version wait warn warning way work write wrong ";

/// Two words that people also write as one.
const COMPOUNDS: [(&str, &str); 10] = [
    ("time", "out"),
    ("time", "stamp"),
    ("keep", "alive"),
    ("black", "hole"),
    ("name", "space"),
    ("check", "sum"),
    ("hand", "shake"),
    ("load", "balancer"),
    ("dead", "lock"),
    ("re", "transmit"),
];

/// The kind of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word of grammar.
    Function,
    /// A word of any error report.
    Ordinary,
    /// Any other word.
    Plain,
    /// A duration. The same duration has the same stem, however it is written.
    Duration,
    /// An issue's number: at least four digits.
    Reference,
    /// Another number, or a name that a machine made, such as an address.
    Number,
}

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// By this, words are compared.
    pub(super) stem: String,
    /// Its kind.
    pub(super) kind: Kind,
    /// Where it is in the text, in bytes.
    pub(super) at: Range<usize>,
}

impl Word {
    fn new(stem: String, at: Range<usize>) -> Self {
        let kind = kind(&stem);
        Self { stem, kind, at }
    }

    /// How much it says, apart from how rare it is.
    pub(super) fn weight(&self) -> f64 {
        match self.kind {
            Kind::Function => 0.0,
            Kind::Ordinary => 0.5,
            // Nobody types the name of a sysctl or of a kernel function by chance.
            Kind::Plain if self.stem.contains('_') => 1.5,
            Kind::Plain | Kind::Reference => 1.0,
            Kind::Duration => 0.6,
            Kind::Number => 0.1,
        }
    }
}

fn kind(stem: &str) -> Kind {
    let digits = stem.bytes().filter(u8::is_ascii_digit).count();
    // 5d6f9c7b8, 10.0.0.1 and 12345.678901; not veth0, ipv6, rfc9293, tls1.3.
    let is_made = digits > 0
        && (stem.starts_with(|c: char| c.is_ascii_digit()) || digits * 2 > stem.len() || digits > 4);
    if is_made {
        return match digits {
            4..=8 if digits == stem.len() => Kind::Reference,
            _ => Kind::Number,
        };
    }
    KNOWN.get(stem).copied().unwrap_or(Kind::Plain)
}

/// The words of the two lists, without their endings.
static KNOWN: LazyLock<HashMap<String, Kind>> = LazyLock::new(|| {
    let list = |words: &'static str, kind| {
        words.split_ascii_whitespace().map(move |word| (ending_removed(word), kind))
    };
    list(ORDINARY_WORDS, Kind::Ordinary).chain(list(FUNCTION_WORDS, Kind::Function)).collect()
});

/// The words of a text, in order.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = vec![];
    for (word, at) in split(text) {
        let Some(last) = found.last() else {
            found.push(of(&word, at));
            continue;
        };
        // Only words that a space or a hyphen separates belong together.
        let joined = matches!(&text[last.at.end..at.start], " " | "-");
        let before = last.at.start..at.end;
        if joined && let Some(duration) = number(&text[last.at.clone()]).and_then(|n| duration(n, &word)) {
            *found.last_mut().expect("there is one") =
                Word { stem: duration, kind: Kind::Duration, at: before };
        } else if joined && let Some(compound) = compound(&last.stem, &word) {
            *found.last_mut().expect("there is one") = Word::new(compound, before);
        } else {
            found.push(of(&word, at));
        }
        if found.len() == WORDS {
            break;
        }
    }
    found
}

/// Two words as one, if people write them so.
fn compound(stem: &str, next: &str) -> Option<String> {
    let same = |one: &str, other: &str| ending_removed(one) == other;
    let next = ending_removed(next);
    let found = COMPOUNDS.iter().find(|(first, second)| same(first, stem) && same(second, &next));
    found.map(|(first, second)| ending_removed(&format!("{first}{second}")))
}

fn of(word: &str, at: Range<usize>) -> Word {
    let unit = word.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|&unit| unit > 0);
    if let Some(duration) = unit.and_then(|unit| duration(number(&word[..unit])?, &word[unit..])) {
        return Word { stem: duration, kind: Kind::Duration, at };
    }
    Word::new(ending_removed(word), at)
}

/// The words in lower case. A dot, a colon or an apostrophe between two letters or digits is
/// part of a number, an address or a word; an underscore always is.
fn split(text: &str) -> impl Iterator<Item = (String, Range<usize>)> {
    let mut letters = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, first) = letters.find(|(_, letter)| letter.is_alphanumeric())?;
            let (mut end, mut last, mut numeric) = (start + first.len_utf8(), first, first.is_ascii_digit());
            while let Some(&(at, letter)) = letters.peek() {
                let inside = match letter {
                    '.' | ':' => numeric && text[at + 1..].starts_with(|c: char| c.is_ascii_digit()),
                    '\'' => last.is_alphabetic() && text[at + 1..].starts_with(char::is_alphabetic),
                    '_' => true,
                    letter => letter.is_alphanumeric(),
                };
                if !inside {
                    break;
                }
                numeric &= letter.is_ascii_digit() || matches!(letter, '.' | ':');
                (end, last) = (at + letter.len_utf8(), letter);
                letters.next();
            }
            let word = text[start..end].trim_end_matches('_');
            if word.len() <= LONGEST {
                return Some((word.to_lowercase(), start..start + word.len()));
            }
        }
    })
}

/// The value of a number in digits or as a word.
fn number(word: &str) -> Option<f64> {
    const NAMED: [(&str, f64); 16] = [
        ("a", 1.0),
        ("an", 1.0),
        ("one", 1.0),
        ("two", 2.0),
        ("three", 3.0),
        ("four", 4.0),
        ("five", 5.0),
        ("six", 6.0),
        ("seven", 7.0),
        ("eight", 8.0),
        ("nine", 9.0),
        ("ten", 10.0),
        ("fifteen", 15.0),
        ("twenty", 20.0),
        ("thirty", 30.0),
        ("sixty", 60.0),
    ];
    let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, value)| *value);
    named.or_else(|| word.parse().ok().filter(|value: &f64| value.is_finite() && *value < 1e9))
}

/// A duration in milliseconds, as `60000ms`; `None` if the word is no unit of time.
fn duration(number: f64, unit: &str) -> Option<String> {
    let milliseconds = match unit {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600e3,
        "d" | "day" | "days" => 86400e3,
        _ => return None,
    };
    Some(format!("{:.0}ms", number * milliseconds))
}

/// The word without the ending of a plural, a participle or a noun. Both sides of a
/// comparison lose the same, so the result need not be a word.
fn ending_removed(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    // Identifiers and numbers have no endings.
    if !word.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return word.to_owned();
    }
    let at_least =
        |stem: &str, length: usize| stem.len() >= length && stem.contains(['a', 'e', 'i', 'o', 'u', 'y']);
    let mut stem = word.to_owned();
    if stem.ends_with('s') && !["ss", "us", "is"].iter().any(|end| stem.ends_with(end)) && stem.len() > 3 {
        stem.pop();
        if let Some(start) = stem.strip_suffix("ie").filter(|start| start.len() > 2) {
            stem = format!("{start}y");
        } else if ["che", "she", "sse", "xe"].iter().any(|end| stem.ends_with(end)) {
            stem.pop();
        }
    }
    for ending in ["ing", "ed"] {
        if let Some(start) = stem.strip_suffix(ending).filter(|start| at_least(start, 3)) {
            stem = start.to_owned();
            let twice = stem.as_bytes().last_chunk::<2>().is_some_and(|[one, other]| one == other);
            if twice && !["ll", "ss"].iter().any(|end| stem.ends_with(end)) {
                stem.pop();
            }
            break;
        }
    }
    if let Some(start) = stem.strip_suffix("ction") {
        stem = format!("{start}ct");
    }
    // `cancelled` and `canceled`; `close`, `closed` and `closing`.
    if stem.ends_with("ll") && stem.len() > 5 {
        stem.pop();
    }
    if stem.ends_with('e') && stem.len() > 3 {
        stem.pop();
    }
    stem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stems(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.stem).collect()
    }

    #[test]
    fn forms_of_a_word_are_one_word() {
        for forms in [
            "canceled cancelled canceling cancels",
            "connection connections connect connected connecting",
            "drop dropped drops dropping",
            "time-out timeout timeouts TIMEOUT",
            "retry retries",
            "close closed closing",
            "lookup lookups",
            "reset resets",
        ] {
            let mut stems = stems(forms);
            stems.dedup();
            assert_eq!(stems.len(), 1, "{forms}: {stems:?}");
        }
        assert_ne!(stems("segmentation"), stems("segment"));
        assert_eq!(stems("timed out"), ["timeout"]);
    }

    #[test]
    fn a_duration_is_the_same_in_every_unit() {
        for text in ["60 s", "60s", "60 seconds", "a minute", "one minute", "1m", "1 min", "60000ms"] {
            assert_eq!(stems(text), ["60000ms"], "{text}");
        }
        assert_eq!(stems("63 s, 15 minutes"), ["63000ms", "900000ms"]);
    }

    #[test]
    fn identifiers_stay_whole() {
        let text = "net.ipv4.tcp_tw_recycle=1 PAWSPassive kubernetes#125979 10.0.0.1:80";
        assert_eq!(
            stems(text),
            ["net", "ipv4", "tcp_tw_recycle", "1", "pawspassiv", "kubernet", "125979", "10.0.0.1:80"]
        );
    }

    proptest! {
        #[test]
        fn words_are_where_they_are(text in "\\PC{0,200}") {
            for word in words(&text) {
                prop_assert!(text.get(word.at.clone()).is_some_and(|word| !word.is_empty()));
            }
        }

        #[test]
        fn any_text_has_few_words(text in any::<String>(), times in 1..50_usize) {
            prop_assert!(words(&text.repeat(times)).len() <= WORDS);
        }
    }
}
