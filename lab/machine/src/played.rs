//! Plays an arm for a shell. The play of some arms waits while the fault lasts; the
//! shell starts meanwhile.

use std::convert::Infallible;

use faultlab_base::error::Result;
use faultlab_engine::evidence::kernel_reports::KernelReports;
use faultlab_engine::run::ArmRun;
use faultlab_engine::scenario::{Play, Scenario, ScriptedArm};
use faultlab_model::outcome::Machine;
use faultlab_model::scenario::Environment;

/// An arm that was played, or whose play waits while its fault lasts.
pub(super) struct Played<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) run: &'s ArmRun<'s>,
    /// The play, if it has not ended.
    pub(super) rest: Option<Play<'s>>,
}

impl<'s> Played<'s> {
    /// Sets up an arm for a shell.
    pub(super) async fn run<'a>(
        scenario: &Scenario,
        env: &'a Environment,
        arm: &'a ScriptedArm,
        reports: &'a KernelReports,
    ) -> Result<ArmRun<'a>> {
        let mut run = ArmRun::set_up(scenario, env, arm, reports, None).await?;
        run.expect_shell();
        Ok(run)
    }

    /// Plays the arm until it ends, or until it waits while its fault lasts.
    pub(super) async fn on(scenario: &'s Scenario, run: &'s ArmRun<'s>) -> Result<Self> {
        let mut play = run.play();
        let stays = async {
            tokio::select! {
                biased;
                played = &mut play => played.map(|()| false),
                () = run.is_held() => Ok(true),
            }
        };
        let stays = run.within(run.budget(Machine::Here), stays).await?;
        Ok(Self { scenario, run, rest: stays.then_some(play) })
    }

    /// Continues the play, if it has not ended; never returns unless it fails.
    pub(super) async fn go_on(rest: Option<Play<'s>>) -> Result<Infallible> {
        if let Some(rest) = rest {
            rest.await?;
        }
        std::future::pending().await
    }
}

/// Plays an arm again.
pub(super) async fn play(run: &ArmRun<'_>) -> Result<()> {
    run.within(run.budget(Machine::Here), run.play()).await
}
