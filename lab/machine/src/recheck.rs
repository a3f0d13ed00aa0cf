//! Plays the probes of an arm again, on the network as the user of a shell has
//! changed it.

use std::io;
use std::time::Duration;

use super::commands::Request;
use super::played::play;
use faultlab_base::error::{Error, Result};
use faultlab_base::text::Cell;
use faultlab_engine::run::ArmRun;
use faultlab_engine::scenario::Scenario;
use faultlab_model::outcome::Map;
use faultlab_model::scenario::Recheck;

/// The exit status of a check whose network could not be prepared for its probes: EX_UNAVAILABLE of
/// sysexits.h.
pub(super) const CANNOT: u8 = 69;

/// An arm that was played, or whose play waits while its fault lasts, and whose
/// probes can be repeated.
pub(super) struct Rechecks<'s, 'a> {
    pub(super) scenario: &'s Scenario,
    pub(super) run: &'s ArmRun<'a>,
    /// Whether the play waits while its fault lasts. Then only what it waits for is
    /// observed again; otherwise the whole play is repeated.
    held: bool,
    /// How long the first play took.
    took: Duration,
}

/// The result of a check.
pub(super) struct Checked {
    /// Whether the symptom's row is the same as in a healthy network.
    pub(super) cured: bool,
    /// What the probes observed.
    pub(super) seen: Map<Cell>,
    /// Why the probes ended before they observed the symptom's row.
    pub(super) stopped: Option<Error>,
}

impl<'s, 'a> Rechecks<'s, 'a> {
    /// For an arm that was just played; `held`: its play waits while its fault lasts.
    pub(super) fn of(scenario: &'s Scenario, run: &'s ArmRun<'a>, held: bool) -> Self {
        Self { scenario, run, held, took: run.elapsed() }
    }

    /// Why this arm cannot be checked; `None` if it can.
    pub(super) fn impossible(&self) -> Option<&'static str> {
        match self.scenario.recheck {
            Recheck::Never => Some("nothing ends this fault once it is there"),
            Recheck::Look if !self.held => Some("these probes cannot be played twice on one network"),
            Recheck::Look | Recheck::Replay => None,
        }
    }

    /// Whether the symptom's row is the same as in a healthy network.
    pub(super) fn cured(&self) -> bool {
        let symptom = self.scenario.symptom;
        self.run.observed().get(symptom.row).is_some_and(|cell| cell == symptom.healthy)
    }

    /// Announces the check and performs it; `None` if the command was interrupted
    /// meanwhile.
    ///
    /// # Errors
    /// If the command has ended before the check begins.
    pub(super) async fn answer(&self, request: &mut Request) -> io::Result<Option<Result<Checked>>> {
        let begun = if self.held {
            "Looking again at the call that hangs.\n".to_owned()
        } else {
            let took = self.took.as_secs() + 1;
            format!("The probes are played again; the first time it took {took} s.\n")
        };
        request.say(begun).await?;
        // Before 6.0 a TIME_WAIT socket cannot be destroyed from outside.
        if !self.held && !self.run.env().kernel.at_least(6, 0) {
            let text = "Before that, up to a minute passes until old TIME_WAIT sockets have expired: \
                        this kernel (before 6.0) cannot destroy them.\n";
            request.say(text.into()).await?;
        }
        Ok(tokio::select! {
            checked = self.check() => Some(checked),
            () = request.interrupted() => None,
        })
    }

    /// Plays the probes on the network in its current state, or observes again what
    /// the play waits for.
    ///
    /// # Errors
    /// If the network cannot be prepared for another play.
    async fn check(&self) -> Result<Checked> {
        let played = if self.held {
            self.run.recheck().await;
            Ok(())
        } else {
            self.run.reset().await?;
            play(self.run).await.and_then(|()| self.run.check_wires())
        };
        let seen = self.run.observed();
        // A failure after the symptom was observed is ignored: the user may have
        // removed what the rest of the play needs.
        let stopped = played.err().filter(|_| seen.get(self.scenario.symptom.row).is_none());
        Ok(Checked { cured: stopped.is_none() && self.cured(), seen, stopped })
    }
}
