//! Every sentence of the catalogue, by its words.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::words::{Kind, Word, words};

/// Where a sentence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Name,
    Title,
    Saw,
    Observed,
    Cause,
    Function,
    Cure,
    Arm,
    Reading,
}

impl Part {
    /// How likely a person with the fault uses its words, from 0 to 1.
    fn weight(self) -> f64 {
        match self {
            Self::Title | Self::Saw => 1.0,
            Self::Name => 0.95,
            Self::Observed | Self::Reading => 0.9,
            Self::Cause | Self::Cure | Self::Function => 0.8,
            Self::Arm => 0.7,
        }
    }

    /// For people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Name => "its name",
            Self::Title => "its title",
            Self::Saw => "what people saw",
            Self::Observed => "observed",
            Self::Cause => "the cause",
            Self::Function => "decided in",
            Self::Cure => "the cure",
            Self::Arm => "an arm",
            Self::Reading => "reading",
        }
    }
}

/// A sentence of a scenario.
#[derive(Debug)]
pub(super) struct Sentence {
    /// The scenario, as an index.
    pub(super) scenario: usize,
    /// Where it is.
    pub(super) part: Part,
    /// The sentence.
    pub(super) text: String,
    /// Its words.
    pub(super) words: Vec<Word>,
    /// The words of each message that it quotes.
    pub(super) quoted: Vec<Range<usize>>,
}

impl Sentence {
    /// How likely a person with the fault uses its words, from 0 to 1.
    pub(super) fn weight(&self) -> f64 {
        self.part.weight()
    }
}

/// The sentences by their words.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) sentences: Vec<Sentence>,
    /// The sentences that have a stem, and how many scenarios do.
    by_stem: HashMap<String, (Vec<usize>, usize)>,
    scenarios: usize,
}

/// A word of the catalogue that stands for a word of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meaning {
    /// The stem in the catalogue.
    pub(super) stem: String,
    /// 1 for the same word, less for a similar one.
    pub(super) likeness: f64,
}

impl Index {
    /// An index of texts, each with its scenario and its part of the story.
    pub(super) fn of(texts: impl IntoIterator<Item = (usize, Part, String)>) -> Self {
        let mut index = Self::default();
        for (scenario, part, text) in texts {
            index.scenarios = index.scenarios.max(scenario + 1);
            for sentence in sentences(&text) {
                index.add(scenario, part, sentence);
            }
        }
        for (having, scenarios) in index.by_stem.values_mut() {
            let among: BTreeSet<_> = having.iter().map(|&at| index.sentences[at].scenario).collect();
            *scenarios = among.len();
        }
        index
    }

    fn add(&mut self, scenario: usize, part: Part, text: &str) {
        let found = words(text);
        let number = self.sentences.len();
        let known: BTreeSet<&str> = found.iter().flat_map(|word| stems(&word.stem)).collect();
        for stem in known {
            self.by_stem.entry(stem.to_owned()).or_default().0.push(number);
        }
        let quoted = quotations(text).map(|quoted| {
            let first = found.partition_point(|word| word.at.start < quoted.start);
            first..found.partition_point(|word| word.at.start < quoted.end)
        });
        let quoted = quoted.filter(|quoted| quoted.len() > 2).collect();
        self.sentences.push(Sentence { scenario, part, text: text.to_owned(), words: found, quoted });
    }

    /// The sentences with this stem.
    pub(super) fn with(&self, stem: &str) -> &[usize] {
        self.by_stem.get(stem).map_or(&[], |(having, _)| having)
    }

    /// How many scenarios have a word like this.
    pub(super) fn scenarios_with(&self, stem: &str) -> usize {
        self.by_stem.get(stem).map_or(0, |(_, scenarios)| *scenarios)
    }

    /// How rare a stem is among the scenarios, from near 0 (all have it) to 1 (one or none has it):
    /// the inverse document frequency of BM25.
    pub(super) fn rarity(&self, stem: &str) -> f64 {
        let all = f64::from(u32::try_from(self.scenarios).unwrap_or(u32::MAX));
        let inverse = |having: f64| (1.0 + (all - having + 0.5) / (having + 0.5)).ln();
        let having = self.by_stem.get(stem).map_or(1, |(_, scenarios)| *scenarios);
        let having = f64::from(u32::try_from(having).unwrap_or(u32::MAX));
        inverse(having) / inverse(1.0)
    }

    /// How much a word of a sentence says.
    pub(super) fn weight(&self, word: &Word) -> f64 {
        word.weight() * self.rarity(&word.stem)
    }

    /// The word of the catalogue that is the same.
    pub(super) fn meaning(&self, word: &Word) -> Option<Meaning> {
        let stem = &word.stem;
        if self.by_stem.contains_key(stem) {
            return Some(Meaning { stem: stem.clone(), likeness: 1.0 });
        }
        // A sysctl's value has no unit.
        let seconds = format!("{stem}000ms");
        let is_number = matches!(word.kind, Kind::Number | Kind::Reference);
        (is_number && self.by_stem.contains_key(&seconds)).then_some(Meaning { stem: seconds, likeness: 0.9 })
    }

    /// The words of the catalogue that a word of a query means: the same, or else the most
    /// similar ones.
    pub(super) fn meanings(&self, word: &Word) -> Vec<Meaning> {
        if let Some(same) = self.meaning(word) {
            return vec![same];
        }
        let stem = &word.stem;
        // A known English word is no typing error.
        let errors = match (word.kind, stem.chars().count()) {
            (Kind::Plain, 5..=8) => 1,
            (Kind::Plain, 9..=40) => 2,
            _ => return vec![],
        };
        let near = self.by_stem.keys().filter_map(|known| {
            let same_start = known.chars().next() == stem.chars().next();
            let close = known.chars().count().abs_diff(stem.chars().count()) <= errors;
            let is_word = known.chars().all(char::is_alphabetic);
            let distance = (same_start && close && is_word).then(|| strsim::osa_distance(known, stem))?;
            (distance <= errors).then(|| (distance, known.clone()))
        });
        let mut near: Vec<_> = near.collect();
        near.sort_unstable();
        let best = near.first().map(|(distance, _)| *distance);
        let best = near.into_iter().take_while(|(distance, _)| Some(*distance) == best);
        best.map(|(distance, stem)| Meaning { stem, likeness: if distance == 1 { 0.8 } else { 0.6 } })
            .collect()
    }
}

/// A stem, and the parts of an identifier: `nf_conntrack_max` is found by `conntrack` too.
pub(super) fn stems(stem: &str) -> impl Iterator<Item = &str> {
    let parts = stem.contains('_').then(|| stem.split('_').filter(|part| part.len() > 1));
    std::iter::once(stem).chain(parts.into_iter().flatten())
}

/// The sentences of a text. A quoted message is never divided.
fn sentences(text: &str) -> Vec<&str> {
    let quoted: Vec<_> = quotations(text).collect();
    let ends = text.match_indices([' ', '\n']).map(|(at, _)| at).filter(|&at| {
        text[..at].ends_with(['.', ';', '?']) && !quoted.iter().any(|quoted| quoted.contains(&at))
    });
    let (mut found, mut start) = (vec![], 0);
    for end in ends.chain([text.len()]) {
        let sentence = text[start..end].trim();
        if !sentence.is_empty() {
            found.push(sentence);
        }
        start = end;
    }
    found
}

/// The quoted parts of a text.
fn quotations(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut marks = text.match_indices('"').map(|(at, _)| at);
    std::iter::from_fn(move || Some(marks.next()? + 1..marks.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_not_divided() {
        let text = "It hangs. The log has \"waiting for vethX. Usage count = 1\"; then all stops";
        assert_eq!(
            sentences(text),
            ["It hangs.", "The log has \"waiting for vethX. Usage count = 1\";", "then all stops"]
        );
    }

    #[test]
    fn a_typing_error_means_the_nearest_word() {
        let index = Index::of([(0, Part::Saw, "the conntrack table, unregister_netdevice".to_owned())]);
        let meant = |text: &str| {
            let meanings = index.meanings(&words(text)[0]);
            meanings.into_iter().map(|meaning| meaning.stem).collect::<Vec<_>>()
        };
        assert_eq!(meant("contrack"), ["conntrack"]);
        assert_eq!(meant("conntrakc"), ["conntrack"]);
        assert_eq!(meant("unregster"), ["unregister"]);
        assert_eq!(meant("tables"), ["tabl"]);
        assert_eq!(meant("banana"), Vec::<String>::new());
    }

    #[test]
    fn the_rarest_word_weighs_most() {
        let texts = ["a reset", "a reset of PAWS", "a reset"].into_iter().enumerate();
        let index = Index::of(texts.map(|(number, text)| (number, Part::Saw, text.to_owned())));
        let [reset, paws, none] = ["reset", "paw", "banana"].map(|stem| index.rarity(stem));
        assert!(
            reset < 0.4 && (paws - 1.0).abs() < 1e-9 && (none - 1.0).abs() < 1e-9,
            "{reset} {paws} {none}"
        );
    }
}
