//! Picks an exercise whose name stays secret.

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

/// Where the exercise is to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// On the running kernel, of a machine that can do this.
    Here(&'a [Ability]),
    /// In a guest.
    Guest,
}

/// A seed of four digits at most, which can be typed again.
pub(super) fn any_seed() -> u64 {
    RandomState::new().hash_one(()) % 10_000
}

/// The exercise of this seed among those that this kernel and place have.
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

/// The rank of a scenario for a seed. The highest is picked, so a scenario that is
/// possible on one machine only does not change which of the others a seed picks.
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
        // The same on every machine and with every version.
        assert_eq!(
            (0..6).map(picked).copied().collect::<Vec<_>>(),
            ["three", "one", "one", "four", "four", "one"]
        );
    }
}
