//! An arm that is played for a shell. It may go on while its fault lasts.

use std::convert::Infallible;

use faultlab_base::error::Result;
use faultlab_engine::evidence::kernel_reports::KernelReports;
use faultlab_engine::run::ArmRun;
use faultlab_engine::scenario::{Play, Scenario, ScriptedArm};
use faultlab_model::outcome::Machine;
use faultlab_model::scenario::Environment;

/// An arm that was played, or whose play goes on while its fault lasts.
pub(super) struct Played<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) run: &'s ArmRun<'s>,
    /// The rest of a play that goes on.
    pub(super) rest: Option<Play<'s>>,
}

impl<'s> Played<'s> {
    /// Sets up an arm for a shell beside it.
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

    /// Plays the arm.
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

    /// Continues it for ever.
    pub(super) async fn go_on(rest: Option<Play<'s>>) -> Result<Infallible> {
        if let Some(rest) = rest {
            rest.await?;
        }
        std::future::pending().await
    }
}

/// Plays an arm once more.
pub(super) async fn play(run: &ArmRun<'_>) -> Result<()> {
    run.within(run.budget(Machine::Here), run.play()).await
}
