//! `faultlab find`: which known fault a text or a file is about.
//!
//! [`texts`] is what the catalogue says, [`index`] its sentences by their [`words`], and
//! [`rank`] compares them with a text. Nothing here knows a scenario.

mod index;
mod input;
mod rank;
mod texts;
mod words;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::Stop;
use faultlab_base::{terminal, text};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_report::Style;

use index::{Index, Part};
use input::{Evidence, Input};
use rank::{Match, Query, Source};
use texts::Reviewed;

/// A file of at most this many lines is read as what somebody typed.
const SHORT: usize = 3;

/// The most matches for people.
const SHOWN: usize = 5;

/// The least score, as a part of the best match's.
const LEAST_OF_BEST: f64 = 0.65;

/// What can be typed.
#[derive(Debug, Args)]
#[command(after_help = "\
Text is an error message, a log line or a symptom, in any order and with typing errors. It
is compared with what the catalogue says of its faults, and with what was observed on real
kernels. The name of a file stands for the file, and `-` for standard input:

  faultlab find 'waiting for lo to become free'
  faultlab find idle connections behind NAT hang after 5 minutes
  faultlab find INVALID
  dmesg | faultlab find -
  faultlab find --json kern.log

Exit status: 0 if a fault matches, 1 if none does, 2 on an error.")]
pub struct Find {
    /// An error message, a symptom in your own words, a file, or `-`
    #[arg(required = true, value_name = "TEXT|FILE")]
    what: Vec<String>,
    /// Print one JSON object, the best match first
    #[arg(long)]
    json: bool,
}

/// The matches, best first, and the words that were and were not understood.
#[derive(Debug, Default)]
struct Found {
    matches: Vec<Match>,
    known: Vec<String>,
    unknown: Vec<String>,
}

pub(super) fn find(catalogue: &Catalogue, find: &Find, style: Style) -> Result<ExitCode, Stop> {
    let input = Input::read(&find.what).map_err(Stop::Usage)?;
    let index = Index::of(texts::texts(catalogue));
    let found = Found::of(&index, &input);
    for file in input.files.iter().filter(|file| file.cut) {
        terminal::say(&format!("{}: only the first part was read", file.name));
    }
    if find.json {
        terminal::print_data(&(text::json(&as_json(catalogue, &found)) + "\n"))?;
    } else {
        terminal::print(&found.page(catalogue, &index, style))?;
    }
    Ok(ExitCode::from(u8::from(found.matches.is_empty())))
}

impl Found {
    fn of(index: &Index, input: &Input) -> Self {
        let mut found = Self::default();
        if !input.typed.is_empty() {
            found.look_up(index, &input.typed, Source::Typed);
        }
        for Evidence { lines, .. } in &input.files {
            if lines.len() <= SHORT {
                found.look_up(index, &lines.join(" "), Source::Typed);
                continue;
            }
            for line in lines {
                found.look_up(index, line, Source::LogLine);
            }
        }
        let best = found.matches.iter().map(|found| found.score).fold(0.0, f64::max);
        found.matches.retain(|found| found.score >= LEAST_OF_BEST * best);
        found.matches.sort_by(|one, other| other.score.total_cmp(&one.score));
        found
    }

    /// Adds the matches of a text; of a scenario, the best stays.
    fn look_up(&mut self, index: &Index, text: &str, source: Source) {
        let query = Query::new(index, text, source);
        if source == Source::Typed {
            let (known, unknown) = query.understood();
            self.known.extend(known.into_iter().map(str::to_owned));
            self.unknown.extend(unknown.into_iter().map(str::to_owned));
        }
        for new in query.matches(index) {
            match self.matches.iter_mut().find(|known| known.scenario == new.scenario) {
                Some(known) if known.score >= new.score => {}
                Some(known) => *known = new,
                None => self.matches.push(new),
            }
        }
    }

    fn page(&self, catalogue: &Catalogue, index: &Index, style: Style) -> String {
        if self.matches.is_empty() {
            return self.nothing(index, style);
        }
        let mut page = String::new();
        for found in self.matches.iter().take(SHOWN) {
            page.push_str(&one(catalogue, &catalogue.scenarios[found.scenario], found, style));
            page.push('\n');
        }
        if let Some(more @ 1..) = self.matches.len().checked_sub(SHOWN) {
            page.push_str(
                &style.paragraph("", &format!("{more} more match less well; --json prints them too.")),
            );
        } else {
            page.pop();
        }
        page
    }

    fn nothing(&self, index: &Index, style: Style) -> String {
        let mut page = style.paragraph("", "Nothing here matches.");
        let scenarios = |word: &String| {
            let meant = words::words(word).first().map(|word| index.meanings(word)).unwrap_or_default();
            let count = meant.iter().map(|meaning| index.scenarios_with(&meaning.stem)).max().unwrap_or(0);
            format!("{word} ({count})")
        };
        if !self.known.is_empty() {
            let known: Vec<_> = self.known.iter().map(scenarios).collect();
            page.push_str(&style.hanging("  words that scenarios have: ", "    ", &known.join(", ")));
        }
        if !self.unknown.is_empty() {
            page.push_str(&style.hanging("  words that none has: ", "    ", &self.unknown.join(", ")));
        }
        let advice = "Try fewer words, the error message alone, or the kernel log (dmesg). `faultlab list` names \
                      every fault.";
        page + &style.paragraph("", advice)
    }
}

/// A match, for people.
fn one(catalogue: &Catalogue, scenario: &Scenario, found: &Match, style: Style) -> String {
    let (card, reviewed) = (&scenario.card, Reviewed::of(catalogue, scenario));
    let mut text = String::new();
    let _ = writeln!(text, "{}  {:.2}", style.bold(card.name), found.score);
    let mut part = |label: &str, body: &str| {
        let label = if label.is_empty() { String::new() } else { format!("{}: ", style.dim(label)) };
        text.push_str(&style.hanging(&format!("  {label}"), "      ", body));
    };
    let (title, sentences): (Vec<_>, Vec<_>) =
        found.because.iter().partition(|reason| reason.part == Part::Title);
    let words = title.first().map_or(String::new(), |reason| format!(" [{}]", reason.words.join(", ")));
    part("", &format!("{}{words}", card.title));
    for reason in sentences {
        part(reason.part.label(), &format!("{} [{}]", reason.sentence, reason.words.join(", ")));
    }
    let none = reviewed.helped.is_empty() && reviewed.helped_sometimes.is_empty();
    for (label, words) in [
        ("not in it", found.against.iter().map(String::as_str).collect()),
        ("helped", if none { vec!["nothing that was tried here"] } else { reviewed.helped }),
        ("helped on some kernels", reviewed.helped_sometimes),
        ("did not help", reviewed.did_not_help),
    ] {
        if !words.is_empty() {
            part(label, &words.join(", "));
        }
    }
    part("symptom", &reviewed.symptom);
    part("next", &format!("faultlab show {name}; faultlab run {name}", name = card.name));
    text
}

fn as_json(catalogue: &Catalogue, found: &Found) -> Value {
    let one = |found: &Match| {
        let scenario = &catalogue.scenarios[found.scenario];
        let reviewed = Reviewed::of(catalogue, scenario);
        let because = |reason: &rank::Reason| json!({"place": reason.part.label(), "text": reason.sentence, "words": reason.words});
        json!({
            "scenario": scenario.card.name,
            "score": (found.score * 100.0).round() / 100.0,
            "because": found.because.iter().map(because).collect::<Vec<_>>(),
            "against": found.against,
            "title": scenario.card.title,
            "symptom": reviewed.symptom,
            "helped": reviewed.helped,
            "helped_on_some_kernels": reviewed.helped_sometimes,
            "did_not_help": reviewed.did_not_help,
        })
    };
    json!({"matches": found.matches.iter().map(one).collect::<Vec<_>>()})
}
