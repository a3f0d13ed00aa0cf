//! What the catalogue says of its scenarios, and what their reviewed snapshots show.

use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::remedies::{Shown, by_era};
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::ArmKind;

use super::index::Part;

/// Every text about the scenarios of a catalogue, with the scenario's index.
pub(super) fn texts(catalogue: &Catalogue) -> Vec<(usize, Part, String)> {
    let mut texts = vec![];
    for (number, scenario) in catalogue.scenarios.iter().enumerate() {
        let mut add = |part, text: &str| texts.push((number, part, text.to_owned()));
        let card = &scenario.card;
        add(Part::Name, card.name);
        add(Part::Title, card.title);
        add(Part::Saw, card.saw);
        add(Part::Cause, card.cause);
        add(Part::Function, card.function);
        add(Part::Cure, card.cure);
        card.reading.iter().for_each(|text| add(Part::Reading, text));
        for arm in scenario.arms() {
            // `control` and `fault` are in every scenario: their names are left out.
            let named = matches!(arm.kind, ArmKind::Variant | ArmKind::Remedy);
            add(
                Part::Arm,
                &if named { format!("{}: {}", arm.name, arm.change) } else { arm.change.to_owned() },
            );
        }
        for observed in observed(catalogue, scenario) {
            add(Part::Observed, &observed);
        }
    }
    texts
}

/// The cells of the fault arm that differ from the control's, as `ROW: CELL`.
fn observed(catalogue: &Catalogue, scenario: &Scenario) -> Vec<String> {
    let mut found = vec![];
    for snapshot in scenario.eras.iter().filter_map(|era| catalogue.reviewed(scenario, era)) {
        for (row, cells) in &snapshot.cells.0 {
            if let Some(cell) = cells.get("fault").filter(|cell| cells.get("control") != Some(cell)) {
                let text = format!("{row}: {cell}");
                if !found.contains(&text) {
                    found.push(text);
                }
            }
        }
    }
    found
}

/// What a scenario's reviewed snapshots say: the symptom, and which remedies helped.
#[derive(Debug, Default)]
pub(super) struct Reviewed {
    /// The fault arm's cell, and the healthy one.
    pub(super) symptom: String,
    /// Remedies that helped in every era that reproduces it.
    pub(super) helped: Vec<&'static str>,
    /// Those that helped in some.
    pub(super) helped_sometimes: Vec<&'static str>,
    /// Those that helped in none.
    pub(super) did_not_help: Vec<&'static str>,
}

impl Reviewed {
    pub(super) fn of(catalogue: &Catalogue, scenario: &Scenario) -> Self {
        let (row, healthy) = (scenario.symptom.row, scenario.symptom.healthy);
        let mut reviewed = Self::default();
        let shown: Vec<_> =
            by_era(catalogue, scenario).into_iter().filter(|found| found.shown == Shown::Fault).collect();
        for arm in scenario.arms() {
            let tried =
                shown.iter().flat_map(|found| &found.remedies).filter(|remedy| remedy.arm == arm.name);
            let (helped, not): (Vec<_>, Vec<_>) = tried.partition(|remedy| remedy.helps);
            let list = match (helped.is_empty(), not.is_empty()) {
                (false, true) => &mut reviewed.helped,
                (false, false) => &mut reviewed.helped_sometimes,
                (true, false) => &mut reviewed.did_not_help,
                (true, true) => continue,
            };
            list.push(arm.name);
        }
        let mut met: Vec<String> = vec![];
        for cell in shown.iter().filter_map(|found| found.symptom.as_ref()) {
            let cell = format!("{:?}", cell.as_str());
            if !met.contains(&cell) {
                met.push(cell);
            }
        }
        reviewed.symptom = match met.as_slice() {
            [] => format!("{row}: not {healthy:?}"),
            met => format!("{row}: {}, not {healthy:?}", met.join(" or ")),
        };
        reviewed
    }
}
