//! The scenarios of a program, and their reviewed snapshots.

use crate::perform::Snapshots;
use crate::scenario::Scenario;
use faultlab_model::scenario::Era;
use faultlab_model::snapshot::{self, Snapshot};

/// The scenarios of a program.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue {
    /// The scenarios, in the order in which they are listed and run.
    pub scenarios: &'static [Scenario],
    /// Their reviewed snapshots.
    pub snapshots: Snapshots,
}

impl Catalogue {
    /// A catalogue of scenarios, for as long as the program runs.
    #[must_use]
    pub fn new(scenarios: Vec<Scenario>, snapshots: Snapshots) -> Self {
        Self { scenarios: scenarios.leak(), snapshots }
    }

    /// The reviewed outcome of an era: with the default timers of a kernel, or with
    /// shorter ones if there is no other. `None` if the scenario never ran there.
    ///
    /// # Panics
    /// If the snapshot cannot be read.
    #[must_use]
    pub fn reviewed(&self, scenario: &Scenario, era: &Era) -> Option<Snapshot> {
        let name = format!("{}@{}", scenario.card.name, era.name);
        let text = (self.snapshots)(&name).or_else(|| (self.snapshots)(&format!("{name}+short")))?;
        Some(snapshot::read(text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// Finds a scenario by name.
    ///
    /// # Errors
    /// One sentence that suggests the nearest name.
    pub fn find(&self, name: &str) -> Result<&'static Scenario, String> {
        self.scenarios.iter().find(|s| s.card.name == name).ok_or_else(|| {
            let names = self.scenarios.iter().map(|s| s.card.name);
            match nearest(name, names) {
                Some(near) => format!("no scenario is named {name:?}; did you mean {near}?"),
                None => format!("no scenario is named {name:?}; `faultlab list` names them"),
            }
        })
    }
}

/// The most similar word, if any is similar at all.
#[must_use]
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| {
        let part = if candidate.contains(word) && word.len() > 2 { 0.5 } else { 0.0 };
        strsim::jaro_winkler(word, candidate).max(strsim::normalized_damerau_levenshtein(word, candidate))
            + part
    };
    words
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_scenario() {
        let names = ["tw-recycle-nat", "veth-teardown-hang", "keepalive-dead-peer"];
        for (typo, meant) in [
            ("tw-recyle-nat", Some("tw-recycle-nat")),
            ("veth-teardwon", Some("veth-teardown-hang")),
            ("recycle", Some("tw-recycle-nat")),
            ("keepalive", Some("keepalive-dead-peer")),
            ("xyzzy", None),
        ] {
            assert_eq!(nearest(typo, names), meant, "{typo}");
        }
    }
}
