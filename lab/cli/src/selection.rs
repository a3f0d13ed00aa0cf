//! Selects the scenarios, arms and settings of a run, and checks them before anything runs.

use std::collections::BTreeMap;
use std::time::Duration;

use faultlab_engine::catalogue::{Catalogue, nearest};
use faultlab_engine::scenario::Scenario;
use faultlab_model::scenario::seconds::in_words;
use faultlab_model::scenario::{ArmKind, Clock, Environment, Need};
use faultlab_net::kernel::Kernel;

/// The longest time that a scenario may wait on a real clock.
const LONGEST: Duration = Duration::from_secs(3600);

/// The values of settings, by key.
pub(super) type Values = BTreeMap<String, String>;

/// The scenarios of these names, in the order of the catalogue. Without names, those that
/// have one of the arms; without arms either, all.
///
/// # Errors
/// A name or an arm that does not exist, or a named scenario without any of the arms.
pub(super) fn scenarios(
    catalogue: &Catalogue,
    names: &[String],
    arms: &[String],
) -> Result<Vec<&'static Scenario>, String> {
    let found = names.iter().map(|name| catalogue.find(name)).collect::<Result<Vec<_>, _>>()?;
    let asked = |s: &&Scenario| found.is_empty() || found.iter().any(|n| n.card.name == s.card.name);
    let mut scenarios: Vec<&'static Scenario> = catalogue.scenarios.iter().filter(asked).collect();
    arms.iter().try_for_each(|arm| known_arm(&scenarios, arm))?;
    let has_one = |scenario: &Scenario| arms.iter().any(|arm| has_arm(scenario, arm));
    match (found.is_empty(), arms) {
        (_, []) => {}
        (true, _) => scenarios.retain(|scenario| has_one(scenario)),
        // A named scenario would run without the requested arm.
        (false, arms) => {
            for scenario in scenarios.iter().filter(|scenario| !has_one(scenario)) {
                known_arm(&[scenario], &arms[0]).map_err(|why| format!("{}: {why}", scenario.card.name))?;
            }
        }
    }
    Ok(scenarios)
}

fn has_arm(scenario: &Scenario, name: &str) -> bool {
    scenario.arms().iter().any(|arm| arm.name == name)
}

/// Checks that one of the scenarios has an arm of this name.
///
/// # Errors
/// A sentence that suggests a similar name, or lists all variants and remedies.
pub(super) fn known_arm(scenarios: &[&Scenario], name: &str) -> Result<(), String> {
    let arms: Vec<_> = scenarios.iter().flat_map(|s| s.arms()).collect();
    if arms.iter().any(|a| a.name == name) {
        return Ok(());
    }
    let hint = if let Some(near) = nearest(name, arms.iter().map(|a| a.name)) {
        format!("did you mean {near}?")
    } else {
        let narrowable = arms.iter().filter(|a| matches!(a.kind, ArmKind::Variant | ArmKind::Remedy));
        let mut names: Vec<_> = narrowable.map(|a| a.name).collect();
        names.sort_unstable();
        names.dedup();
        format!("there are {}", names.join(", "))
    };
    Err(format!("no arm is named {name:?}; {hint}"))
}

/// Checks that each arm applies in one of the scenarios on the running kernel. A scenario
/// that needs a guest is not checked: its outcome will say that it is not applicable.
///
/// # Errors
/// If an arm applies in none of them: a sentence.
pub(super) fn arms_apply(scenarios: &[&Scenario], arms: &[String], set: &Values) -> Result<(), String> {
    for arm in arms {
        let mut having = scenarios.iter().filter(|scenario| has_arm(scenario, arm));
        let applies = |scenario: &&Scenario| {
            let env = Environment::new(scenario, Kernel::running(), Clock::Real, &of(scenario, set));
            let applies = |name: &str| scenario.arms_on(&env, &[]).iter().any(|arm| arm.name == name);
            scenario.needs.contains(&Need::ExclusiveKernel) || applies(arm)
        };
        if !having.any(applies) {
            return Err(does_not_apply(arm));
        }
    }
    Ok(())
}

/// The sentence about an arm that does not apply.
pub(super) fn does_not_apply(arm: &str) -> String {
    format!("the arm {arm} does not apply to this kernel with these settings")
}

/// Parses the `KEY=VALUE` arguments for these scenarios.
///
/// # Errors
/// If no scenario has the key, it is given twice with different values, or one of the
/// scenarios does not accept the value: a sentence.
pub(super) fn settings(scenarios: &[&Scenario], arguments: &[String]) -> Result<Values, String> {
    let mut values = Values::new();
    for argument in arguments {
        let (key, value) = setting(scenarios, argument)?;
        if let Some(other) = values.insert(key.clone(), value.clone())
            && other != value
        {
            return Err(format!("--set {key} is given twice, as {other} and as {value}"));
        }
    }
    Ok(values)
}

fn setting(scenarios: &[&Scenario], text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("--set takes KEY=VALUE, not {text:?}"));
    };
    let settings = scenarios.iter().flat_map(|s| s.settings).filter(|s| s.key == key);
    let read = settings.map(|setting| setting.parse(value)).collect::<Result<Vec<_>, _>>()?;
    if let Some(value) = read.first() {
        return Ok((key.to_owned(), value.clone()));
    }
    let mut known: Vec<_> = scenarios.iter().flat_map(|s| s.settings).map(|s| s.key).collect();
    known.sort_unstable();
    known.dedup();
    Err(match (nearest(key, known.iter().copied()), known.as_slice()) {
        (_, []) => {
            let none = match scenarios {
                [only] => format!("{} has none", only.card.name),
                _ => "these scenarios have none".to_owned(),
            };
            format!("no setting is named {key:?}; {none}")
        }
        (Some(near), _) => format!("no setting is named {key:?}; did you mean {near}?"),
        (None, known) => format!("no setting is named {key:?}; there are {}", known.join(", ")),
    })
}

/// The values whose keys are settings of this scenario.
pub(super) fn of(scenario: &Scenario, set: &Values) -> Values {
    let known = |key: &str| scenario.settings.iter().any(|s| s.key == key);
    set.iter().filter(|(key, _)| known(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Checks that a run on a real clock takes at most [`LONGEST`]. `otherwise` ends the error
/// message and says what to do instead.
///
/// # Errors
/// If it would take longer: a sentence with the time.
pub(super) fn is_short(
    scenario: &Scenario,
    arms: &[String],
    set: &Values,
    otherwise: &str,
) -> Result<(), String> {
    let set = of(scenario, set);
    let env = Environment::new(scenario, Kernel::running(), Clock::Real, &set);
    let lasts = scenario.run_lasts(&env, arms);
    if lasts <= LONGEST {
        return Ok(());
    }
    let values: Vec<_> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Err(format!(
        "{} with {} would take {} of real time; {otherwise}",
        scenario.card.name,
        values.join(", "),
        in_words(lasts)
    ))
}
