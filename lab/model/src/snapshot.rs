//! Snapshots: the reviewed outcome of an era as a table, which is readable in a diff and
//! is compared cell by cell.

use crate::outcome::{Map, Outcome, Verdict};
use faultlab_base::text::Cell;

/// A reviewed outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The verdict.
    pub verdict: String,
    /// The cells, by row and then by arm.
    pub cells: Map<Map<Cell>>,
}

/// Formats an outcome as a snapshot.
///
/// It omits what varies between runs or machines: the kernel's release, times, evidence,
/// and cells that could not be observed.
#[must_use]
pub fn write(outcome: &Outcome) -> String {
    let mut text = format!("verdict: {}\nsymptom: {}\n\n", outcome.verdict, outcome.symptom);
    let rows = outcome.rows();
    let mut table: Vec<Vec<&str>> = vec![];
    table.push([""].into_iter().chain(outcome.arms.iter().map(|a| &*a.name)).collect());
    for row in rows {
        let cells = outcome.arms.iter().map(|a| a.observations.get(row).map_or("", Cell::as_str));
        table.push([row].into_iter().chain(cells).collect());
    }
    let widths: Vec<usize> = (0..table[0].len())
        .map(|c| table.iter().map(|r| r[c].chars().count()).max().unwrap_or(0).max(3))
        .collect();
    for (number, row) in table.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            let rules: Vec<_> = widths.iter().map(|&w| "-".repeat(w)).collect();
            text.push_str(&format!("|-{}-|\n", rules.join("-|-")));
        }
    }
    text
}

/// The outcome, with the cells that could not be observed copied from a snapshot, so that
/// a test without the privilege to observe them can compare the other cells.
#[must_use]
pub fn with_unseen(outcome: &Outcome, snapshot: &Snapshot) -> Outcome {
    let mut filled = outcome.clone();
    for arm in &mut filled.arms {
        for row in arm.unobserved.keys() {
            if let Some(cell) = snapshot.cells.get(row).and_then(|cells| cells.get(&arm.name)) {
                arm.observations.insert(row, cell.clone());
            }
        }
    }
    filled
}

/// Parses a snapshot, with or without insta's header.
///
/// # Errors
/// One sentence that names the line.
pub fn read(text: &str) -> Result<Snapshot, String> {
    let body =
        text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")).map_or(text, |(_, body)| body);
    let mut verdict = None;
    let mut arms: Vec<String> = vec![];
    let mut cells: Map<Map<Cell>> = Map::default();
    for line in body.lines().map(str::trim) {
        if let Some(word) = line.strip_prefix("verdict: ") {
            verdict = Some(word.to_owned());
        } else if let Some(inner) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) {
            let mut words = inner.split('|').map(|w| w.trim().to_owned());
            let row = words.next().unwrap_or_default();
            let words: Vec<_> = words.collect();
            if arms.is_empty() {
                arms = words;
            } else if !row.starts_with("--") {
                if words.len() != arms.len() {
                    return Err(format!("row {row:?} has {} cells for {} arms", words.len(), arms.len()));
                }
                let seen = arms.iter().cloned().zip(words).filter(|(_, cell)| !cell.is_empty());
                cells.insert(row, seen.collect::<Map<_>>());
            }
        }
    }
    Ok(Snapshot { verdict: verdict.ok_or("there is no line `verdict: ...`")?, cells })
}

/// The differences between an outcome and the snapshot of its era, one clause each; empty
/// if the outcome is as expected.
///
/// Only the arms that ran are compared, and only cells that could be observed.
#[must_use]
pub fn differences(outcome: &Outcome, snapshot: &Snapshot) -> Vec<String> {
    let mut found = vec![];
    if outcome.verdict.to_string() != snapshot.verdict {
        found.push(format!("the verdict is {}, not {}", outcome.verdict, snapshot.verdict));
    }
    if outcome.verdict == Verdict::NotApplicable {
        return found;
    }
    for arm in &outcome.arms {
        for (row, seen) in &arm.observations.0 {
            match snapshot.cells.get(row).and_then(|cells| cells.get(&arm.name)) {
                Some(expected) if expected == seen => {}
                Some(expected) => {
                    found.push(format!("{}, {row}: {seen:?}, not {expected:?}", arm.name));
                }
                None => {
                    found.push(format!("{}, {row}: {seen:?}, which the snapshot does not have", arm.name));
                }
            }
        }
        for (row, cells) in &snapshot.cells.0 {
            if cells.get(&arm.name).is_some()
                && arm.observations.get(row).is_none()
                && arm.unobserved.get(row).is_none()
            {
                found.push(format!("{}, {row}: not observed", arm.name));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{ArmOutcome, Seconds};
    use crate::scenario::{ArmKind, Clock};

    fn arm(name: &str, kind: ArmKind, rows: &[(&str, &str)]) -> ArmOutcome {
        let observations = rows.iter().map(|(row, cell)| (*row, *cell)).collect();
        ArmOutcome { observations, ..ArmOutcome::new(name, kind) }
    }

    fn outcome() -> Outcome {
        Outcome {
            scenario: "s".into(),
            kernel: "6.1".into(),
            kernel_id: None,
            machine: crate::outcome::Machine::Here,
            clock: Clock::Real,
            era: Some("e".into()),
            verdict: Verdict::Reproduced,
            expected: true,
            without_reference: false,
            reason: None,
            settings: Map::default(),
            symptom: "connects".into(),
            control_is_healthy: true,
            arms: vec![
                arm("control", ArmKind::Control, &[("connects", "connected"), ("log", "nothing")]),
                arm("fault", ArmKind::Fault, &[("connects", "timed out"), ("log", "waiting")]),
            ],
            log: vec![],
            seconds: Seconds { wall: 1.0, virtual_time: None, wire: None },
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = write(&outcome());
        insta::assert_snapshot!(text, @r"
        verdict: reproduced
        symptom: connects

        |          | control   | fault     |
        |----------|-----------|-----------|
        | connects | connected | timed out |
        | log      | nothing   | waiting   |
        ");
        let snapshot = read(&format!("---\nsource: x\n---\n{text}")).unwrap();
        assert_eq!(differences(&outcome(), &snapshot), Vec::<String>::new());
    }

    #[test]
    fn a_changed_cell_is_named() {
        let snapshot = read(&write(&outcome())).unwrap();
        let mut changed = outcome();
        changed.arms[1].observations.insert("connects", "reset");
        assert_eq!(differences(&changed, &snapshot), ["fault, connects: \"reset\", not \"timed out\""]);
    }

    #[test]
    fn a_cell_that_could_not_be_observed_is_not_compared_but_a_missing_one_is() {
        let snapshot = read(&write(&outcome())).unwrap();
        let mut blind = outcome();
        for arm in &mut blind.arms {
            arm.observations.0.retain(|(row, _)| row != "log");
        }
        assert_eq!(differences(&blind, &snapshot).len(), 2);
        for arm in &mut blind.arms {
            arm.unobserved.insert("log", "no privilege");
        }
        assert_eq!(differences(&blind, &snapshot), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,400}") {
            let _ = read(&text);
        }
    }
}
