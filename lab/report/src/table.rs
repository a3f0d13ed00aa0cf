//! An outcome as text for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style as Ansi};
use serde::{Deserialize, Serialize};

use crate::grid::{Column, NO_BREAK, grid};
use faultlab_base::text;
use faultlab_model::outcome::{ArmOutcome, Outcome, Verdict};
use faultlab_model::scenario::{ArmKind, Clock, Fault};

/// The page width, and whether to use colour.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Style {
    /// The width in columns.
    pub width: usize,
    /// Whether to write SGR escape sequences.
    pub colour: bool,
}

const BOLD: Ansi = Ansi::new().bold();
const DIM: Ansi = Ansi::new().dimmed();
const RED: Ansi = AnsiColor::Red.on_default();
const GREEN: Ansi = AnsiColor::Green.on_default();
const YELLOW: Ansi = AnsiColor::Yellow.on_default();

impl Style {
    /// The text in a style, if colour is enabled. It is cleaned by [`text::lines`].
    #[must_use]
    pub fn paint(self, style: Ansi, text: &str) -> String {
        let text = &*text::lines(text);
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Bold text.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint(BOLD, text)
    }

    /// Dimmed text.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint(DIM, text)
    }

    /// A heading and its body.
    #[must_use]
    pub fn part(self, heading: &str, body: &str) -> String {
        format!("{}\n{body}", self.bold(heading))
    }

    /// Text wrapped to the width, at most 100 columns, with every line indented.
    #[must_use]
    pub fn paragraph(self, indent: &str, text: &str) -> String {
        self.hanging(indent, indent, text)
    }

    /// The same, with another indent for the first line. The text is cleaned by
    /// [`text::lines`]. For untrusted text neither indent may be empty, so that none of its
    /// lines looks like a line of this program.
    #[must_use]
    pub fn hanging(self, first: &str, indent: &str, text: &str) -> String {
        let options = textwrap::Options::new(self.width.min(100))
            .initial_indent(first)
            .subsequent_indent(indent)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .word_separator(textwrap::WordSeparator::AsciiSpace);
        let mut filled = textwrap::fill(&text::lines(text), options);
        filled.push('\n');
        filled
    }
}

/// The verdict, and how it compares with the expected one.
#[must_use]
pub fn verdict(outcome: &Outcome, style: Style) -> String {
    if outcome.nothing_differs_without_the_cause() {
        return format!("without its cause: {}", style.paint(GREEN, "nothing differs, as it should"));
    }
    let colour = match (outcome.verdict, outcome.expected) {
        (Verdict::NotApplicable, _) => YELLOW,
        (_, true) => GREEN,
        (_, false) => RED,
    };
    let text = style.paint(colour, &outcome.verdict.to_string());
    match outcome.standing() {
        "" => text,
        standing => format!("{text}, {standing}"),
    }
}

/// The whole outcome: heading, table, and explanations.
#[must_use]
pub fn outcome(scenario: &Fault, outcome: &Outcome, style: Style) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}", style.bold(&outcome.scenario), verdict(outcome, style));
    text.push_str(&style.paragraph("", scenario.card.title));
    text.push_str(&style.dim(style.paragraph("", &facts(outcome)).trim_end()));
    text.push('\n');
    if !outcome.arms.is_empty() {
        let _ = writeln!(text, "\n{}\n", table(outcome, style));
    }
    if let Some(reason) = outcome.reason.as_ref().filter(|_| !outcome.nothing_differs_without_the_cause()) {
        text.push_str(&style.paragraph("  ", reason));
    }
    // Only arms with the symptom are explained.
    for arm in outcome.arms.iter().filter(|a| a.symptom == Some(true)) {
        for sentence in &arm.because {
            text.push_str(&style.hanging(&format!("  {}: ", arm.name), "    ", sentence));
        }
    }
    text.push_str(&why(outcome, style));
    text.push_str(&capture_gap(outcome, style));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Why each arm differs from the control, as far as the outcome has it: the reason, and the
/// evidence for arms with the symptom.
#[must_use]
pub fn why(outcome: &Outcome, style: Style) -> String {
    let mut text = String::new();
    for arm in &outcome.arms {
        let Some((reason, rest)) = arm.why.split_first() else { continue };
        text.push_str(&style.hanging(&format!("  {}, why: ", style.bold(&arm.name)), "    ", reason));
        for line in rest.iter().filter(|_| arm.symptom == Some(true) || arm.kind == ArmKind::Control) {
            text.push_str(&style.hanging("    - ", "      ", line));
        }
    }
    text
}

/// What is missing from the captures, one line for all arms that lack the same.
fn capture_gap(outcome: &Outcome, style: Style) -> String {
    let mut told: Vec<(&str, Vec<&str>)> = vec![];
    for arm in &outcome.arms {
        let Some(what) = arm.capture_gap.as_deref() else { continue };
        match told.iter_mut().find(|(known, _)| *known == what) {
            Some((_, arms)) => arms.push(&arm.name),
            None => told.push((what, vec![&arm.name])),
        }
    }
    let line = |(what, arms): (&str, Vec<&str>)| {
        style.hanging("  ", "    ", &format!("not captured in {}: {what}", arms.join(", ")))
    };
    told.into_iter().map(line).collect()
}

/// Where it ran, on which kernel, and with which settings.
fn facts(outcome: &Outcome) -> String {
    let mut facts = vec![format!("{}: Linux {}", outcome.machine, outcome.kernel)];
    if outcome.clock == Clock::Virtual {
        facts.push("virtual time".to_owned());
    }
    facts.extend(outcome.era.as_ref().map(|era| format!("era {era}")));
    facts.push(format!("{:.1} s", outcome.seconds.wall));
    facts.extend(outcome.settings.0.iter().map(|(key, value)| format!("{key}={value}")));
    facts.join(", ")
}

/// The columns of a table: the observations, with a cell for each arm.
fn columns_of(outcome: &Outcome) -> Vec<Column> {
    let cell = |arm: &ArmOutcome, row: &str| match (arm.observations.get(row), arm.unobserved.get(row)) {
        (Some(seen), _) => seen.to_string(),
        (None, Some(why)) => format!("? ({why})"),
        (None, None) => "-".to_owned(),
    };
    let star = |row: &str| if row == outcome.symptom { format!("{row}{NO_BREAK}*") } else { row.to_owned() };
    let column = |row| Column::new(star(row), outcome.arms.iter().map(|arm| cell(arm, row)).collect());
    outcome.rows().into_iter().map(column).collect()
}

/// The table: one line per arm, one column per observation.
#[must_use]
pub fn table(outcome: &Outcome, style: Style) -> String {
    let arms: Vec<&str> = outcome.arms.iter().map(|a| a.name.as_str()).collect();
    let plain = grid(&arms, &columns_of(outcome), style.width);
    let painted = plain.lines().map(|line| paint_line(line, outcome, style));
    painted.collect::<Vec<_>>().join("\n")
}

/// Colours the names of the arms, by whether they have the symptom, and the mark of the
/// symptom row.
fn paint_line(line: &str, outcome: &Outcome, style: Style) -> String {
    if !style.colour {
        return line.to_owned();
    }
    let mut painted = line.to_owned();
    for arm in &outcome.arms {
        let colour = match (arm.kind, arm.symptom) {
            (ArmKind::Control, _) | (_, None) => continue,
            (_, Some(true)) => RED,
            (_, Some(false)) => GREEN,
        };
        let bounded = format!("  {}  ", arm.name);
        if format!("  {line}  ").contains(&bounded) {
            painted = painted.replacen(arm.name.as_str(), &format!("{colour}{}{colour:#}", arm.name), 1);
        }
    }
    painted.replace(" *", &format!(" {BOLD}*{BOLD:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::column;

    #[test]
    fn a_fault_without_its_cause_reads_as_a_success() {
        let outcome = column("6.0", Verdict::Failed, "open", true).outcomes.remove(0);
        let style = Style { width: 100, colour: false };
        assert_eq!(verdict(&outcome, style), "without its cause: nothing differs, as it should");
    }

    #[test]
    fn what_is_not_captured_is_told_once() {
        let mut outcome = column("6.0", Verdict::Reproduced, "reset", true).outcomes.remove(0);
        let style = Style { width: 100, colour: false };
        assert_eq!(capture_gap(&outcome, style), "");
        outcome.arms.iter_mut().for_each(|arm| arm.capture_gap = Some("7 frames".into()));
        assert_eq!(capture_gap(&outcome, style), "  not captured in control, fault: 7 frames\n");
    }
}
