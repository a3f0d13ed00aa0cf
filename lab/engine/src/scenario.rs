//! A fault, with the play that shows it.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use faultlab_base::Result;
use faultlab_model::scenario::{Arm, Arms, Card, Environment, Era, Fault, Need, Recheck, Setting};

use crate::stage::Stage;

/// A fault, with the play that shows it. It lives as long as the program.
pub struct Scenario {
    /// What the fault is.
    pub fault: Fault,
    scripts: Box<Scripts>,
}

/// Makes the arms of an environment, with their plays.
type Scripts = dyn Fn(&Environment) -> Vec<ScriptedArm> + Send + Sync;

/// An arm, with the play and its conduct in this arm.
#[derive(Clone)]
pub struct ScriptedArm {
    /// The arm.
    pub arm: Arm,
    script: Rc<dyn Script>,
}

/// The probes of one arm, in progress.
pub type Play<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A play together with its conduct. Each scenario has its own conduct type; `dyn
/// Script` hides it from the engine.
trait Script {
    fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a>;
}

/// A play and the conduct of one arm.
struct Conducted<C, F> {
    conduct: C,
    play: F,
}

impl<C, F: AsyncFn(&Stage<'_>, &C) -> Result<()>> Script for Conducted<C, F> {
    fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a> {
        Box::pin((self.play)(stage, &self.conduct))
    }
}

impl fmt::Debug for ScriptedArm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedArm").field("arm", &self.arm).finish_non_exhaustive()
    }
}

impl ScriptedArm {
    /// The play of the scenario with the conduct of this arm.
    pub(crate) fn play<'a>(&'a self, stage: &'a Stage<'a>) -> Play<'a> {
        self.script.play(stage)
    }

    /// The same arm without its change: network and conduct are those of `base`.
    #[must_use]
    pub fn unchanged_from(&self, base: &Self) -> Self {
        let network = base.arm.network.clone();
        Self { arm: Arm { network, edits: vec![], ..self.arm.clone() }, script: Rc::clone(&base.script) }
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scenario").field(&self.fault.card.name).finish()
    }
}

impl Deref for Scenario {
    type Target = Fault;

    fn deref(&self) -> &Fault {
        &self.fault
    }
}

impl Scenario {
    /// A fault: its story, the symptom row with its value in a healthy network, its
    /// arms, and the play that all of them share.
    ///
    /// The play receives the arm's conduct and runs in the arm's network. It knows
    /// neither the arm's name nor its kind: the verdict can differ only if the
    /// observations do.
    #[must_use]
    pub fn new<C, F>(
        card: Card,
        symptom: (&'static str, &'static str),
        arms: impl Fn(&Environment) -> Arms<C> + Copy + Send + Sync + 'static,
        play: F,
    ) -> Self
    where
        C: fmt::Debug + 'static,
        F: AsyncFn(&Stage<'_>, &C) -> Result<()> + Copy + Send + Sync + 'static,
    {
        let without_plays =
            move |env: &Environment| arms(env).finish().into_iter().map(|(arm, _)| arm).collect::<Vec<_>>();
        let scripts = move |env: &Environment| {
            let scripted = |(arm, conduct)| {
                let script: Rc<dyn Script> = Rc::new(Conducted { conduct, play });
                ScriptedArm { arm, script }
            };
            arms(env).finish().into_iter().map(scripted).collect::<Vec<_>>()
        };
        Self { fault: Fault::new(card, symptom, without_plays), scripts: Box::new(scripts) }
    }

    /// The required kernel features and privileges; veth by default.
    #[must_use]
    pub fn needs(mut self, needs: impl Into<Vec<Need>>) -> Self {
        self.fault.needs = needs.into().leak();
        self
    }

    /// What `--set` can change.
    #[must_use]
    pub fn settings(mut self, settings: impl Into<Vec<Setting>>) -> Self {
        self.fault.settings = settings.into().leak();
        self
    }

    /// Roughly how long the slowest arm waits, computed from the settings; zero by
    /// default. On a real clock, a run that would wait too long is refused before it
    /// starts, and a run that takes much longer than this is ended.
    #[must_use]
    pub fn lasts(mut self, lasts: fn(&Environment) -> Duration) -> Self {
        self.fault.lasts = lasts;
        self
    }

    /// The ranges of kernels that behave alike, in the order in which they are tried;
    /// without any, every kernel shows the fault.
    #[must_use]
    pub fn eras(mut self, eras: impl Into<Vec<Era>>) -> Self {
        self.fault.eras = eras.into().leak();
        self
    }

    /// The arms run one after another if this returns true.
    #[must_use]
    pub fn sequential(mut self, sequential: fn(&Environment) -> bool) -> Self {
        self.fault.sequential = sequential;
        self
    }

    /// The fault may leave its kernel unusable: no other scenario runs in the same
    /// guest.
    #[must_use]
    pub fn guest_not_shared(mut self) -> Self {
        self.fault.guest_not_shared = true;
        self
    }

    /// How an exercise checks whether the fault is cured; by default it plays the
    /// probes again.
    #[must_use]
    pub fn recheck(mut self, recheck: Recheck) -> Self {
        self.fault.recheck = recheck;
        self
    }

    /// The arms of an environment with their plays, narrowed like [`Fault::arms_on`].
    #[must_use]
    pub fn scripted_on(&self, env: &Environment, only: &[String]) -> Vec<ScriptedArm> {
        (self.scripts)(env).into_iter().filter(|scripted| scripted.arm.is_wanted(only)).collect()
    }
}
