//! `shell --exercise` without a scenario: picks a secret exercise.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use sha2::{Digest, Sha256};

use super::run_here;
use faultlab_base::error::{Error, Result};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_machine::check::Ability;
use faultlab_machine::exercise;
use faultlab_model::scenario::{Clock, Environment, Need, Recheck};
use faultlab_net::kernel::Kernel;
use faultlab_report::exercise::can_be_solved;

/// Where the exercise runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// On the running kernel, with the abilities of this machine.
    Here(&'a [Ability]),
    /// In a guest.
    Guest,
}

/// A random seed of at most four digits, short enough to type.
pub(super) fn any_seed() -> u64 {
    RandomState::new().hash_one(()) % 10_000
}

/// The exercise that this seed picks among those that are possible on this kernel and in this
/// place.
///
/// # Errors
/// [`Error::Lab`] if there is none.
pub(super) fn exercise(
    catalogue: &Catalogue,
    kernel: &Kernel,
    place: Place<'_>,
    seed: u64,
) -> Result<&'static Scenario> {
    let possible = catalogue.scenarios.iter().filter(|scenario| is_possible(scenario, kernel, place));
    possible.max_by_key(|scenario| weight(scenario.card.name, seed)).ok_or_else(|| {
        Error::Lab(
            "there is no exercise to pick here; --kernel has more, `faultlab doctor` says why".to_owned(),
        )
    })
}

fn is_possible(scenario: &Scenario, kernel: &Kernel, place: Place<'_>) -> bool {
    let env = Environment::new(scenario, kernel.clone(), Clock::Real, &BTreeMap::new());
    let placed = match place {
        Place::Here(abilities) => {
            !scenario.needs.contains(&Need::ExclusiveKernel)
                && run_here::missing(abilities, scenario.needs).is_none()
        }
        Place::Guest => true,
    };
    placed
        && scenario.recheck != Recheck::Never
        && exercise::has_something(scenario, &env).is_ok()
        && can_be_solved(scenario, &env)
}

/// The rank of a scenario for a seed; the highest is picked. So a scenario that is not
/// possible on a machine changes only those picks that would have been this scenario
/// (rendezvous hashing).
fn weight(name: &str, seed: u64) -> [u8; 32] {
    Sha256::digest(format!("{seed} {name}")).into()
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn seeds_pick_every_exercise_about_as_often() {
        let names = ["one", "two", "three", "four"];
        let picked = |seed| names.iter().max_by_key(|name| weight(name, seed)).unwrap();
        for name in names {
            let times = (0..1000).filter(|&seed| *picked(seed) == name).count();
            assert!((200..300).contains(&times), "{name}: {times}");
        }
        // Picks must not depend on the machine, and not change between versions.
        assert_eq!(
            (0..6).map(picked).copied().collect::<Vec<_>>(),
            ["three", "one", "one", "four", "four", "one"]
        );
    }
}
