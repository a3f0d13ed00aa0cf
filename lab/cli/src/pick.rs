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
        let none = match place {
            Place::Here(_) => {
                "no exercise can be solved here; --kernel ID has more, `faultlab doctor` says why"
            }
            Place::Guest => "no exercise can be solved on this kernel; try another --kernel",
        };
        Error::Lab(none.to_owned())
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
        && exercise::check_not_immune(scenario, &env).is_ok()
        && can_be_solved(scenario, &env)
}

/// The rank of a scenario for a seed; the highest is picked. Rendezvous hashing: if a
/// scenario is impossible on a machine, only the seeds that would have picked it pick
/// another one.
fn weight(name: &str, seed: u64) -> [u8; 32] {
    Sha256::digest(format!("{seed} {name}")).into()
}

#[cfg(test)]
mod tests {
    use super::{Place, exercise, weight};
    use faultlab_engine::catalogue::Catalogue;
    use faultlab_net::kernel::Kernel;

    #[test]
    fn without_an_exercise_the_advice_fits_the_place() {
        let none = Catalogue::new(vec![], |_| None);
        let why = |place| exercise(&none, &Kernel::running(), place, 1).err().unwrap().to_string();
        assert_eq!(why(Place::Guest), "no exercise can be solved on this kernel; try another --kernel");
        let here = "no exercise can be solved here; --kernel ID has more, `faultlab doctor` says why";
        assert_eq!(why(Place::Here(&[])), here);
    }

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
