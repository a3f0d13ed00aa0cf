//! Which remedy works where: read from the reviewed outcomes, and from nothing else.

use crate::catalogue::Catalogue;
use crate::scenario::Scenario;
use faultlab_base::text::Cell;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::{ArmKind, Era};
use faultlab_model::snapshot::Snapshot;

/// What the reviewed outcome of an era shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The fault, and what each remedy does about it.
    Fault,
    /// That these kernels are immune.
    Immune,
    /// Nothing: the scenario never ran on such a kernel.
    NotRun,
}

/// The remedies of a scenario on the kernels of one era.
#[derive(Debug)]
pub struct EraRemedies {
    /// The era.
    pub era: &'static Era,
    /// What its reviewed outcome shows.
    pub shown: Shown,
    /// The fault arm's cell in the symptom row; `None` without a fault.
    pub symptom: Option<Cell>,
    /// The remedies that were tried, in the order of the arms; empty without a fault.
    pub remedies: Vec<Remedy>,
}

/// A remedy, and its effect.
#[derive(Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The name of its arm.
    pub arm: &'static str,
    /// What it changes, in prose.
    pub change: &'static str,
    /// Whether the symptom is the control's.
    pub helps: bool,
    /// What it breaks: the rows in which a connection works in the control and in the
    /// fault, but not with the remedy, with the remedy's cell.
    pub breaks: Vec<(Cell, Cell)>,
}

impl Remedy {
    /// What it breaks, as ` (but ROW: CELL)`; empty if it breaks nothing.
    #[must_use]
    pub fn side_effects(&self) -> String {
        let breaks: Vec<_> = self.breaks.iter().map(|(row, cell)| format!("{row}: {cell}")).collect();
        if breaks.is_empty() { String::new() } else { format!(" (but {})", breaks.join(", ")) }
    }
}

/// The remedies of a scenario, for each of its eras.
///
/// # Panics
/// If a snapshot of the catalogue cannot be read, or lacks the symptom row.
#[must_use]
pub fn by_era(catalogue: &Catalogue, scenario: &Scenario) -> Vec<EraRemedies> {
    let of = |era: &'static Era| {
        let Some(reviewed) = catalogue.reviewed(scenario, era) else {
            return EraRemedies { era, shown: Shown::NotRun, symptom: None, remedies: vec![] };
        };
        if reviewed.verdict != "reproduced" {
            return EraRemedies { era, shown: Shown::Immune, symptom: None, remedies: vec![] };
        }
        let cells = reviewed.cells.get(scenario.symptom.row).expect("a snapshot has the symptom row");
        let symptom = cells.get("fault").cloned();
        EraRemedies { era, shown: Shown::Fault, symptom, remedies: remedies(scenario, cells, &reviewed) }
    };
    scenario.eras.iter().map(of).collect()
}

fn remedies(scenario: &Scenario, cells: &Map<Cell>, reviewed: &Snapshot) -> Vec<Remedy> {
    let healthy = cells.get("control");
    let tried = scenario.arms().into_iter().filter(|arm| arm.kind == ArmKind::Remedy);
    tried
        .filter_map(|arm| {
            let helps = Some(cells.get(arm.name)?) == healthy;
            Some(Remedy { arm: arm.name, change: arm.change, helps, breaks: breaks(reviewed, arm.name) })
        })
        .collect()
}

fn breaks(reviewed: &Snapshot, arm: &str) -> Vec<(Cell, Cell)> {
    let works = |cell: Option<&Cell>| cell.is_some_and(|c| matches!(c.as_str(), "connected" | "received"));
    let broken = |(row, cells): &(Cell, Map<Cell>)| {
        let worked = works(cells.get("control")) && works(cells.get("fault"));
        let cell = cells.get(arm).filter(|cell| worked && !works(Some(cell)))?;
        Some((row.clone(), cell.clone()))
    };
    reviewed.cells.0.iter().filter_map(broken).collect()
}

#[cfg(test)]
mod tests {
    use faultlab_model::scenario::{Arms, Card};
    use faultlab_net::topology::Topology;

    use super::*;

    #[test]
    fn remedies_are_read_from_the_snapshots() {
        let arms = |_: &_| {
            Arms::control("", Topology::new(), 0)
                .fault("", |arm| arm.conduct = 1)
                .remedy("keepalive", "a keepalive", |arm| arm.conduct = 2)
                .remedy("drop-invalid", "a rule", |arm| arm.conduct = 3)
                .remedy("not-there", "a sysctl of other kernels", |arm| arm.conduct = 4)
        };
        let card = Card::for_test("idle", "");
        let eras = [
            Era::new("new", "6.1 and later", |_| true).immune(),
            Era::new("old", "up to 6.0", |_| true),
            Era::new("older", "up to 3.16", |_| true).not_run(),
        ];
        let scenario = Scenario::new(card, ("the flow", "open"), arms, async |_, _| Ok(())).eras(eras);
        let snapshots = |name: &str| match name {
            "idle@new" => Some("verdict: immune\n\n| | control |\n|--|--|\n| the flow | open |\n"),
            "idle@old+short" => Some(
                "verdict: reproduced\n\n\
                 | | control | fault | keepalive | drop-invalid |\n|--|--|--|--|--|\n\
                 | the flow | open | reset | open | reset |\n\
                 | a new one | connected | connected | timed out | connected |\n",
            ),
            _ => None,
        };
        let catalogue = Catalogue::new(vec![scenario], snapshots);
        let found = by_era(&catalogue, &catalogue.scenarios[0]);
        let shown: Vec<_> = found.iter().map(|found| (found.era.name, found.shown)).collect();
        assert_eq!(shown, [("new", Shown::Immune), ("old", Shown::Fault), ("older", Shown::NotRun)]);
        assert_eq!(found[1].remedies[0].side_effects(), " (but a new one: timed out)");
        let breaks = vec![("a new one".into(), "timed out".into())];
        assert_eq!(
            found[1].remedies,
            [
                Remedy { arm: "keepalive", change: "a keepalive", helps: true, breaks },
                Remedy { arm: "drop-invalid", change: "a rule", helps: false, breaks: vec![] },
            ]
        );
    }
}
