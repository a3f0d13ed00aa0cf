//! What the catalogue says of its scenarios, and what their reviewed snapshots show.

use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::{Arm, ArmKind, Shows};
use faultlab_model::snapshot::{self, Snapshot};

use super::index::Place;

/// Every text about the scenarios of a catalogue, with the scenario's index.
pub(super) fn texts(catalogue: &Catalogue) -> Vec<(usize, Place, String)> {
    let mut texts = vec![];
    for (number, scenario) in catalogue.scenarios.iter().enumerate() {
        let mut add = |place, text: &str| texts.push((number, place, text.to_owned()));
        let card = &scenario.card;
        add(Place::Name, card.name);
        add(Place::Title, card.title);
        add(Place::Saw, card.saw);
        add(Place::Cause, card.cause);
        add(Place::Function, card.function);
        add(Place::Cure, card.cure);
        card.reading.iter().for_each(|text| add(Place::Reading, text));
        for arm in scenario.arms() {
            // Those of all other arms are the words of this program.
            let named = matches!(arm.kind, ArmKind::Variant | ArmKind::Remedy);
            add(
                Place::Arm,
                &if named { format!("{}: {}", arm.name, arm.change) } else { arm.change.to_owned() },
            );
        }
        let snapshots = snapshots(catalogue, scenario, |_| true);
        for observed in observed(&scenario.arms(), &snapshots) {
            add(Place::Observed, &observed);
        }
    }
    texts
}

/// The reviewed snapshots of the eras that `wanted` selects.
fn snapshots(catalogue: &Catalogue, scenario: &Scenario, wanted: fn(Shows) -> bool) -> Vec<Snapshot> {
    let eras = scenario.eras.iter().filter(|era| wanted(era.shows));
    let names =
        eras.flat_map(|era| ["", "+short"].map(|end| format!("{}@{}{end}", scenario.card.name, era.name)));
    let texts = names.filter_map(|name| (catalogue.snapshots)(&name));
    texts.filter_map(|text| snapshot::read(text).ok()).collect()
}

/// The cells of the fault arm that differ from the control's, as `ROW: CELL`.
fn observed(arms: &[Arm], snapshots: &[Snapshot]) -> Vec<String> {
    let named = |kind: ArmKind| arms.iter().find(|arm| arm.kind == kind).map(|arm| arm.name);
    let (Some(control), Some(fault)) = (named(ArmKind::Control), named(ArmKind::Fault)) else {
        return vec![];
    };
    let mut found = vec![];
    for (row, cells) in snapshots.iter().flat_map(|snapshot| &snapshot.cells.0) {
        if let Some(cell) = cells.get(fault).filter(|cell| cells.get(control) != Some(cell)) {
            let text = format!("{row}: {cell}");
            if !found.contains(&text) {
                found.push(text);
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
        let snapshots = snapshots(catalogue, scenario, |shows| shows == Shows::Reproduced);
        let mut met: Vec<String> = vec![];
        let mut reviewed = Self::default();
        for arm in scenario.arms() {
            let cells = snapshots.iter().filter_map(|snapshot| snapshot.cells.get(row)?.get(arm.name));
            match arm.kind {
                ArmKind::Fault => cells.for_each(|cell| {
                    let cell = format!("{:?}", cell.as_str());
                    if !met.contains(&cell) {
                        met.push(cell);
                    }
                }),
                ArmKind::Remedy => {
                    let (helped, not): (Vec<_>, Vec<_>) = cells.partition(|cell| *cell == healthy);
                    let list = match (helped.is_empty(), not.is_empty()) {
                        (false, true) => &mut reviewed.helped,
                        (false, false) => &mut reviewed.helped_sometimes,
                        (true, false) => &mut reviewed.did_not_help,
                        (true, true) => continue,
                    };
                    list.push(arm.name);
                }
                ArmKind::Control | ArmKind::Variant => {}
            }
        }
        reviewed.symptom = match met.as_slice() {
            [] => format!("{row}: not {healthy:?}"),
            met => format!("{row}: {}, not {healthy:?}", met.join(" or ")),
        };
        reviewed
    }
}
