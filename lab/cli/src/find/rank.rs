//! Ranks the scenarios by how well they explain a text.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Meaning, Part, Sentence, stems};
use super::words::{Kind, Word, words};

/// The part of a text's words that a scenario must have, by weight.
const COVERED: f64 = 0.55;

/// The same of a text with the name of a sysctl or of a kernel function that few scenarios have.
const COVERED_NAMED: f64 = 0.3;

/// The weight of a phrase that suffices alone, whatever else the text says: about two and a half
/// words that one scenario only has, in the order of a sentence.
const PHRASE: f64 = 2.2;

/// The part of a quoted message that a text must have, by weight; and the least weight of
/// such a message.
const QUOTED: f64 = 0.8;
const QUOTED_LEAST: f64 = 0.9;

/// How much a duration that a scenario does not have speaks against it, as a part of its
/// weight.
const OTHER_DURATION: f64 = 0.25;

/// The loss for each word that a phrase skips, in the text or in the sentence.
const SKIPPED: f64 = 0.12;

/// The weight of a word of grammar, where it is in its place in a phrase.
const IN_PLACE: f64 = 0.1;

/// The words of a phrase that are compared. More of a text are another phrase.
const PHRASE_WORDS: usize = 80;

/// A scenario that explains a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    /// The scenario, as an index.
    pub(super) scenario: usize,
    /// From 0 to 1.
    pub(super) score: f64,
    /// The sentences with the most of the text's words, best first.
    pub(super) because: Vec<Reason>,
    /// The words of the text that the scenario does not have.
    pub(super) against: Vec<String>,
}

/// A sentence of a scenario, and the words of it that the text has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reason {
    pub(super) part: Part,
    pub(super) sentence: String,
    pub(super) words: Vec<String>,
}

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Somebody typed it to describe a fault.
    Typed,
    /// A line of a file with many lines, most of which are about something else.
    LogLine,
}

/// Words that a text shares with a sentence: their indices in the text, and how alike they are.
type Shared = Vec<(usize, f64)>;

/// A word of the text, with what it means in the catalogue.
struct Asked {
    word: Word,
    shown: String,
    meanings: Vec<Meaning>,
    weight: f64,
}

impl Asked {
    fn shown(&self) -> &str {
        &self.shown
    }

    fn likeness(&self, stem: &str) -> f64 {
        let same = |meaning: &&Meaning| stems(stem).any(|part| part == meaning.stem);
        self.meanings.iter().find(same).map_or(0.0, |meaning| meaning.likeness)
    }
}

/// A text as the index understands it.
pub(super) struct Query {
    asked: Vec<Asked>,
    /// The indices of the first occurrences of words that are not grammar.
    content: Vec<usize>,
    total: f64,
    source: Source,
}

impl Query {
    pub(super) fn new(index: &Index, text: &str, source: Source) -> Self {
        let mut asked: Vec<Asked> = vec![];
        // What a program printed has no typing errors.
        let meanings = |word: &Word| match source {
            Source::Typed => index.meanings(word),
            Source::LogLine => index.meaning(word).into_iter().collect(),
        };
        for word in words(text) {
            let whole = meanings(&word);
            // An identifier that the catalogue does not have is its parts.
            let parts = if whole.is_empty() && word.stem.contains('_') { parts(&word) } else { vec![word] };
            for word in parts {
                let shown = text.get(word.at.clone()).unwrap_or(&word.stem).to_owned();
                let meanings = meanings(&word);
                let rarity = meanings.iter().map(|meaning| index.rarity(&meaning.stem)).fold(0.0, f64::max);
                let weight = word.weight() * if meanings.is_empty() { unknown(&word) } else { rarity };
                asked.push(Asked { word, shown, meanings, weight });
            }
        }
        let mut known = BTreeSet::new();
        let content: Vec<_> = (0..asked.len())
            .filter(|&at| asked[at].weight > 0.0 && known.insert(asked[at].word.stem.clone()))
            .collect();
        let total = content.iter().map(|&at| asked[at].weight).sum();
        Self { asked, content, total, source }
    }

    /// Its words that the catalogue has, and those that it does not.
    pub(super) fn understood(&self) -> (Vec<&str>, Vec<&str>) {
        let content = self.content.iter().map(|&at| &self.asked[at]);
        let (known, unknown): (Vec<_>, Vec<_>) = content.partition(|asked| !asked.meanings.is_empty());
        (known.into_iter().map(Asked::shown).collect(), unknown.into_iter().map(Asked::shown).collect())
    }

    /// The scenarios that explain it, best first.
    pub(super) fn matches(&self, index: &Index) -> Vec<Match> {
        // What each sentence has of it.
        let mut has: BTreeMap<usize, Shared> = BTreeMap::new();
        for &at in &self.content {
            for meaning in &self.asked[at].meanings {
                for &sentence in index.with(&meaning.stem) {
                    let words = has.entry(sentence).or_default();
                    if words.last().is_none_or(|(last, _)| *last != at) {
                        words.push((at, meaning.likeness));
                    }
                }
            }
        }
        let mut scenarios: BTreeMap<usize, Vec<(usize, Shared)>> = BTreeMap::new();
        for (sentence, words) in has {
            scenarios.entry(index.sentences[sentence].scenario).or_default().push((sentence, words));
        }
        let found = scenarios.into_iter().filter_map(|(scenario, has)| self.judge(index, scenario, has));
        let mut found: Vec<_> = found.collect();
        found.sort_by(|one, other| other.score.total_cmp(&one.score));
        found
    }

    fn judge(&self, index: &Index, scenario: usize, mut has: Vec<(usize, Shared)>) -> Option<Match> {
        let sum = |words: &[(usize, f64)]| {
            words.iter().map(|(at, like)| self.asked[*at].weight * like).sum::<f64>()
        };
        has.sort_by(|(one, its), (other, others)| {
            let worth =
                |sentence: &usize, words: &[(usize, f64)]| sum(words) * index.sentences[*sentence].weight();
            worth(other, others).total_cmp(&worth(one, its))
        });
        // No phrase weighs more than its words.
        if self.source == Source::LogLine && sum(&has.first()?.1) < PHRASE / 2.0 {
            return None;
        }
        let best = &index.sentences[has.first()?.0];
        // Words of one sentence belong together; those of a story do so less, and those from
        // anywhere in the scenario least.
        let mut part: BTreeMap<usize, f64> = BTreeMap::new();
        for (number, (sentence, words)) in has.iter().enumerate() {
            let sentence = &index.sentences[*sentence];
            let near = match sentence.part {
                _ if number == 0 => 1.0,
                same if same == best.part => 0.9,
                Part::Title | Part::Saw => 0.85,
                _ => 0.65,
            };
            for (at, likeness) in words {
                let worth = near * likeness * sentence.weight();
                let known = part.entry(*at).or_default();
                *known = known.max(worth);
            }
        }
        let covered: f64 = part.iter().map(|(at, worth)| self.asked[*at].weight * worth).sum();
        let coverage = covered / (self.total - self.tolerated(&part));
        let phrases = has.iter().filter(|(_, words)| words.len() > 1).map(|(sentence, _)| {
            let sentence = &index.sentences[*sentence];
            (self.phrase(index, sentence) * sentence.weight(), self.quotes(index, sentence))
        });
        let (phrase, quotes) = phrases.fold((0.0, false), |(most, quotes), (phrase, quoted)| {
            (f64::max(most, phrase), quotes || quoted)
        });
        let named = part.keys().any(|&at| self.names_it(index, at));
        let enough = match self.source {
            Source::Typed => {
                coverage >= if named { COVERED_NAMED } else { COVERED } || phrase >= PHRASE || quotes
            }
            // Among many lines, some have many words of a story by chance.
            Source::LogLine => phrase >= PHRASE || quotes,
        };
        // "the server is slow" is about any fault. A single word is looked up as in a book's index.
        let telling = |at: &usize| !matches!(self.asked[*at].word.kind, Kind::Ordinary | Kind::Number);
        if !enough || !(part.keys().any(telling) || self.asked.len() == 1) {
            return None;
        }
        // However long a phrase is, the other words count.
        let strength = (phrase / (2.0 * PHRASE)).min(0.8).max(if quotes { 0.5 } else { 0.0 });
        let score = coverage.min(1.0).mul_add(1.0 - strength, strength) * 0.99;
        Some(Match { scenario, score, because: self.because(index, &has), against: self.against(&part) })
    }

    /// The weight of the durations that a scenario does not have, as far as it does not count
    /// against it: users have other timeouts than the catalogue.
    fn tolerated(&self, part: &BTreeMap<usize, f64>) -> f64 {
        let durations = self.content.iter().filter(|at| self.asked[**at].word.kind == Kind::Duration);
        let known = |at: &&usize| !part.contains_key(*at) && !self.asked[**at].meanings.is_empty();
        durations.filter(known).map(|at| self.asked[*at].weight * (1.0 - OTHER_DURATION)).sum()
    }

    /// Whether a word is an identifier that only a few scenarios have.
    fn names_it(&self, index: &Index, at: usize) -> bool {
        let word = &self.asked[at].word;
        word.kind == Kind::Plain && word.stem.contains('_') && index.rarity(&word.stem) > 0.5
    }

    /// Up to three sentences, each with words that those before it do not have.
    fn because(&self, index: &Index, has: &[(usize, Shared)]) -> Vec<Reason> {
        let (mut told, mut reasons) = (BTreeSet::new(), vec![]);
        for (sentence, words) in has {
            let new: f64 =
                words.iter().filter(|(at, _)| !told.contains(at)).map(|(at, _)| self.asked[*at].weight).sum();
            if reasons.is_empty() || new > 0.15 * self.total {
                told.extend(words.iter().map(|(at, _)| *at));
                let sentence = &index.sentences[*sentence];
                let mut words: Vec<_> = words.iter().map(|(at, _)| *at).collect();
                words.sort_unstable();
                let words = words.into_iter().map(|at| self.shown_as(at, sentence)).collect();
                reasons.push(Reason { part: sentence.part, sentence: sentence.text.clone(), words });
            }
            if reasons.len() == 3 {
                break;
            }
        }
        reasons
    }

    /// A word as the sentence has it.
    fn shown_as(&self, at: usize, sentence: &Sentence) -> String {
        let asked = &self.asked[at];
        let same = sentence.words.iter().find(|word| asked.likeness(&word.stem) > 0.0);
        same.map_or_else(|| asked.shown.clone(), |word| sentence.text[word.at.clone()].to_owned())
    }

    fn against(&self, part: &BTreeMap<usize, f64>) -> Vec<String> {
        let missing = self.content.iter().filter(|at| !part.contains_key(at)).map(|&at| &self.asked[at]);
        let telling = missing.filter(|asked| !matches!(asked.word.kind, Kind::Number));
        telling.map(|asked| asked.shown.clone()).take(12).collect()
    }

    /// The weight of the best phrase that the text and the sentence share: words in the same
    /// order, with few others between them. Smith and Waterman's local alignment.
    fn phrase(&self, index: &Index, sentence: &Sentence) -> f64 {
        let longest = sentence.words.len().min(PHRASE_WORDS);
        let (mut before, mut most) = (vec![0.0; longest + 1], 0.0_f64);
        for asked in self.asked.iter().take(PHRASE_WORDS * 4) {
            let mut row = vec![0.0; longest + 1];
            for (at, word) in sentence.words[..longest].iter().enumerate() {
                let same = if asked.word.stem == word.stem { 1.0 } else { asked.likeness(&word.stem) };
                let met = if same > 0.0 {
                    same * index.weight(word).min(asked.weight).max(IN_PLACE)
                } else {
                    -SKIPPED
                };
                let skipped = f64::max(row[at], before[at + 1]) - SKIPPED;
                row[at + 1] = f64::max(before[at] + met, skipped).max(0.0);
                most = most.max(row[at + 1]);
            }
            before = row;
        }
        most
    }

    /// Whether the text has a message that the sentence quotes.
    fn quotes(&self, index: &Index, sentence: &Sentence) -> bool {
        sentence.quoted.iter().any(|quoted| {
            let words = &sentence.words[quoted.clone()];
            let has = |word: &Word| self.asked.iter().any(|asked| asked.word.stem == word.stem);
            let weight = |word: &Word| index.weight(word).max(IN_PLACE);
            let all: f64 = words.iter().map(weight).sum();
            let there: f64 = words.iter().filter(|word| has(word)).map(weight).sum();
            all >= QUOTED_LEAST && there >= QUOTED * all
        })
    }
}

/// The penalty for a word that no scenario has, as a part of its weight. People
/// have programs and timeouts of their own.
fn unknown(word: &Word) -> f64 {
    match word.kind {
        Kind::Duration => OTHER_DURATION,
        Kind::Reference => 0.5,
        _ => 0.85,
    }
}

fn parts(word: &Word) -> Vec<Word> {
    let mut at = word.at.start;
    let mut found = vec![];
    for part in word.stem.split('_') {
        // The stem may be shorter than the word.
        if part.len() > 1 && at + part.len() <= word.at.end {
            found.extend(words(part).into_iter().map(|inner| Word { at: at..at + part.len(), ..inner }));
        }
        at += part.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two faults, and so many others that words have their rarity.
    fn index() -> Index {
        let faults = [
            "The table is full: new connections fail. dmesg has \"nf_conntrack: table full, dropping packet\".",
            "Pods stay Terminating: \"unregister_netdevice: waiting for vethX to become free. Usage count = 1\".",
        ];
        let others =
            (2..10).map(|number| (number, Part::Saw, format!("other{number} connections wait for a server")));
        let faults =
            faults.into_iter().enumerate().map(|(number, text)| (number, Part::Saw, text.to_owned()));
        Index::of(faults.chain(others))
    }

    fn found(text: &str, source: Source) -> Vec<usize> {
        let index = index();
        Query::new(&index, text, source).matches(&index).iter().map(|found| found.scenario).collect()
    }

    #[test]
    fn a_text_finds_its_fault_in_any_order_and_with_typing_errors() {
        for (text, fault) in [
            ("nf_conntrack: table full, dropping packet", 0),
            ("conntrakc table is full", 0),
            ("kernel: [12.3] unregister_netdevice: waiting for lo to become free. Usage count = 7", 1),
            ("pod terminating", 1),
            ("netdevice unregster", 1),
        ] {
            assert_eq!(found(text, Source::Typed), [fault], "{text}");
        }
    }

    #[test]
    fn a_text_about_something_else_finds_nothing() {
        for text in
            ["disk full", "the server is slow", "segmentation fault in libc", "no such table in postgres", ""]
        {
            assert_eq!(found(text, Source::Typed), Vec::<usize>::new(), "{text}");
        }
    }

    #[test]
    fn a_line_of_a_log_must_be_the_message() {
        let message = "Nov 28 01:00:00 node7 kernel: nf_conntrack: nf_conntrack: table full, dropping packet";
        assert_eq!(found(message, Source::LogLine), [0]);
        assert_eq!(found("the pod is terminating", Source::LogLine), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn any_text_has_scores_and_reasons(text in prop_oneof![
            ".{0,200}",
            prop::collection::vec(prop::sample::select(vec![
                "table", "full", "conntrack", "NF_CONNTRACK", "\u{130}_\u{130}", "waiting", "_", "60", "s", "\"", "unregister__netdevice",
            ]), 0..40).prop_map(|words| words.join(" ")),
        ]) {
            let index = index();
            for source in [Source::Typed, Source::LogLine] {
                let query = Query::new(&index, &text, source);
                for found in query.matches(&index) {
                    prop_assert!((0.0..=1.0).contains(&found.score), "{}", found.score);
                    prop_assert!(!found.because.is_empty());
                }
            }
        }
    }
}
