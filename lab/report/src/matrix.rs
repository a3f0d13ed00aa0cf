//! The matrix of scenarios by kernels, and the changes from each kernel to the next.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::Style;
use crate::grid;
use faultlab_base::text::Cell;
use faultlab_model::outcome::{Outcome, Verdict};

/// The result of a scenario without an outcome, because the run was interrupted.
pub(crate) const NOT_RUN: &str = "not run: interrupted";

/// A column of the matrix: the outcomes of one kernel.
#[derive(Debug, Clone)]
pub struct Column {
    /// The kernel as it was requested, which is the heading.
    pub kernel: Cell,
    /// Its outcomes.
    pub outcomes: Vec<Outcome>,
    /// The scenarios without an outcome, because the run was interrupted.
    pub not_run: Vec<String>,
}

impl Column {
    /// A column of a complete run.
    #[must_use]
    pub fn new(kernel: impl Into<Cell>, outcomes: Vec<Outcome>) -> Self {
        Self { kernel: kernel.into(), outcomes, not_run: vec![] }
    }

    fn of(&self, scenario: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|o| o.scenario == scenario)
    }
}

/// The matrix as text, followed by the changes, and by the reason of each outcome that is not
/// as expected or has no reference.
#[must_use]
pub fn matrix(columns: &[Column], style: Style) -> String {
    let scenarios = scenarios(columns);
    let cells = |column: &Column| {
        let cell = |scenario: &&str| column.of(scenario).map_or("-".to_owned(), cell);
        grid::Column::new(column.kernel.clone(), scenarios.iter().map(cell).collect())
    };
    let mut text = grid::grid(&scenarios, &columns.iter().map(cells).collect::<Vec<_>>(), style.width);
    let changes = changes(columns);
    if columns.len() > 1 {
        text.push('\n');
        if changes.is_empty() {
            text.push_str("  Nothing changed between these kernels.\n");
        }
    }
    for change in &changes {
        text.push_str(&style.hanging("  ", "    ", &change.to_string()));
    }
    for column in columns {
        for outcome in column.outcomes.iter().filter(|o| !o.expected || o.without_reference) {
            let reason = outcome.reason.as_deref().unwrap_or("it differs from its snapshot");
            let sentence = format!("{}, {}: {reason}", column.kernel, outcome.scenario);
            text.push_str(&style.hanging(if outcome.expected { "  " } else { "  ! " }, "    ", &sentence));
        }
    }
    text
}

fn cell(outcome: &Outcome) -> String {
    if outcome.nothing_differs_without_the_cause() {
        return "nothing differs".to_owned();
    }
    let mut text = outcome.verdict.to_string();
    if !outcome.expected {
        text.push_str(" !");
    }
    text
}

/// The names of the scenarios in any of the columns, without duplicates.
#[must_use]
pub fn scenarios(columns: &[Column]) -> Vec<&str> {
    let mut known = HashSet::new();
    let names = columns.iter().flat_map(|c| &c.outcomes).map(|o| o.scenario.as_str());
    names.filter(|name| known.insert(*name)).collect()
}

/// How a scenario differs between neighbouring kernels.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The kernels, the earlier column first.
    pub kernels: [&'a str; 2],
    /// The scenario.
    pub scenario: &'a str,
    /// Its verdict on each kernel.
    pub verdicts: [Verdict; 2],
    /// The cells that differ.
    pub cells: Vec<Cells<'a>>,
}

/// The cells of a row that changed in the same way, in one or more arms.
#[derive(Debug, Clone)]
pub struct Cells<'a> {
    /// The row.
    pub row: &'a str,
    /// The arms.
    pub arms: Vec<&'a str>,
    /// The cell on each kernel.
    pub cells: [&'a str; 2],
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [old, new] = self.kernels;
        write!(f, "{old} -> {new}, {}: ", self.scenario)?;
        let [was, is] = self.verdicts;
        let verdict = (was != is).then(|| format!("{was} became {is}"));
        let cells = self.cells.iter().map(|Cells { row, arms, cells: [was, is] }| {
            format!("{row} ({}): {was} became {is}", arms.join(", "))
        });
        f.write_str(&verdict.into_iter().chain(cells).collect::<Vec<_>>().join("; "))
    }
}

/// The changes from each kernel to the next, scenario by scenario.
#[must_use]
pub fn changes(columns: &[Column]) -> Vec<Change<'_>> {
    let mut found = vec![];
    for pair in columns.windows(2) {
        for scenario in scenarios(pair) {
            let (Some(old), Some(new)) = (pair[0].of(scenario), pair[1].of(scenario)) else { continue };
            let verdicts = [old.verdict, new.verdict];
            let changed = old.verdict != new.verdict;
            if !changed && matches!(old.verdict, Verdict::Failed | Verdict::NotApplicable) {
                continue;
            }
            let cells = cells_changed(old, new);
            if changed || !cells.is_empty() {
                let kernels = [pair[0].kernel.as_str(), pair[1].kernel.as_str()];
                found.push(Change { kernels, scenario, verdicts, cells });
            }
        }
    }
    found
}

fn cells_changed<'a>(old: &'a Outcome, new: &'a Outcome) -> Vec<Cells<'a>> {
    let mut changed: Vec<Cells<'_>> = vec![];
    let mut places: HashMap<(&str, [&str; 2]), usize> = HashMap::new();
    for arm in &old.arms {
        let Some(same) = new.arms.iter().find(|a| a.name == arm.name) else { continue };
        for (row, was) in &arm.observations.0 {
            let Some(is) = same.observations.get(row).filter(|is| *is != was) else { continue };
            let cells = [was.as_str(), is.as_str()];
            let place = *places.entry((row, cells)).or_insert_with(|| {
                changed.push(Cells { row, arms: vec![], cells });
                changed.len() - 1
            });
            changed[place].arms.push(&arm.name);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::column;

    const STYLE: Style = Style { width: 80, colour: false };

    #[test]
    fn what_changed_is_told_by_row() {
        let columns = [
            column("6.0", Verdict::Reproduced, "reset", true),
            column("6.1", Verdict::Immune, "open", true),
            column("6.2", Verdict::Immune, "open", true),
        ];
        assert_eq!(
            changes(&columns).iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "6.0 -> 6.1, beyond-window: reproduced became immune; the connection (fault): reset became open"
            ]
        );
        insta::assert_snapshot!(matrix(&columns, STYLE), @r"
                        6.0          6.1      6.2
        ────────────────────────────────────────────
        beyond-window   reproduced   immune   immune

        6.0 -> 6.1, beyond-window: reproduced became immune; the connection (fault):
          reset became open
        ");
    }

    #[test]
    fn what_is_not_expected_has_its_reason() {
        let text = matrix(&[column("6.0", Verdict::Failed, "open", false)], STYLE);
        assert!(
            text.contains("failed !") && text.contains("! 6.0, beyond-window: nothing was reproduced"),
            "{text}"
        );
    }
}
