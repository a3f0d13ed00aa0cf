//! The arguments of `run`: as they are typed, and as they are used.

use std::collections::BTreeMap;

use clap::Args;

use crate::catalogue::{Catalogue, nearest};
use crate::scenario::{ArmKind, Scenario};

/// A scenario mostly waits for the kernel's timers, so several run on one
/// processor as fast as one.
const JOBS: usize = 8;

/// What can be typed.
#[derive(Debug, Args)]
pub struct Run {
    /// Scenarios to run; all of them where none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Run only this variant or remedy, beside control and fault
    #[arg(long, value_name = "NAME")]
    arm: Vec<String>,
    /// Change a setting of a scenario; `faultlab show` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Scenarios to run side by side [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Print one JSON object per scenario and line
    #[arg(long)]
    json: bool,
}

/// What is to be done.
#[derive(Debug)]
pub struct Options {
    /// The scenarios, in the order of the catalogue.
    pub scenarios: Vec<&'static Scenario>,
    /// Variants and remedies to narrow to.
    pub only: Vec<String>,
    /// What was set.
    pub set: BTreeMap<String, String>,
    /// How many scenarios run side by side.
    pub jobs: usize,
    /// Whether results are JSON.
    pub json: bool,
    /// Whether what cannot run is a failure (FAULTLAB_REQUIRE_ALL=1).
    pub require_all: bool,
}

impl Run {
    /// Checks everything that was typed, before anything runs.
    ///
    /// # Errors
    /// One sentence that names what is wrong and what would be right.
    pub fn options(self, catalogue: &Catalogue) -> Result<Options, String> {
        let scenarios: Vec<&'static Scenario> = if self.scenarios.is_empty() {
            catalogue.scenarios.iter().collect()
        } else {
            let named = self.scenarios.iter().map(|n| catalogue.find(n)).collect::<Result<Vec<_>, _>>()?;
            catalogue.scenarios.iter().filter(|s| named.iter().any(|n| n.card.name == s.card.name)).collect()
        };
        for arm in &self.arm {
            known_arm(&scenarios, arm)?;
        }
        let set = self.set.iter().map(|s| setting(&scenarios, s)).collect::<Result<_, _>>()?;
        Ok(Options {
            scenarios,
            only: self.arm,
            set,
            jobs: self.jobs.map_or(JOBS, usize::from),
            json: self.json,
            require_all: std::env::var_os("FAULTLAB_REQUIRE_ALL").is_some_and(|v| v == "1"),
        })
    }
}

fn known_arm(scenarios: &[&Scenario], name: &str) -> Result<(), String> {
    let arms = || scenarios.iter().flat_map(|s| s.arms);
    if arms().any(|a| a.name == name) {
        return Ok(());
    }
    let hint = if let Some(near) = nearest(name, arms().map(|a| a.name)) {
        format!("did you mean {near}?")
    } else {
        let mut names: Vec<_> =
            arms().filter(|a| matches!(a.kind, ArmKind::Variant | ArmKind::Remedy)).map(|a| a.name).collect();
        names.sort_unstable();
        names.dedup();
        format!("there are {}", names.join(", "))
    };
    Err(format!("no arm is named {name:?}; {hint}"))
}

fn setting(scenarios: &[&Scenario], text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("--set takes KEY=VALUE, not {text:?}"));
    };
    let settings: Vec<_> = scenarios.iter().flat_map(|s| s.settings).filter(|s| s.key == key).collect();
    if settings.is_empty() {
        let mut known: Vec<_> = scenarios.iter().flat_map(|s| s.settings).map(|s| s.key).collect();
        known.sort_unstable();
        known.dedup();
        return Err(match known.as_slice() {
            [] => format!("no setting is named {key:?}; {} has none", scenarios[0].card.name),
            known => format!("no setting is named {key:?}; there are {}", known.join(", ")),
        });
    }
    settings.iter().try_for_each(|s| s.check(value))?;
    Ok((key.to_owned(), value.to_owned()))
}
