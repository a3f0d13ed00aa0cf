//! The time limit of an arm. A play that exceeds it hangs: it waits for something
//! without a deadline.

use std::time::Duration;

use tokio::time::timeout;

use super::ArmRun;
use faultlab_base::error::{Error, Result};
use faultlab_model::outcome::Machine;
use faultlab_model::scenario::Clock;
use faultlab_net::network::Network;
use faultlab_net::network::journal::Journal;

/// The time that a play may take on this machine, in addition to twice its waits.
const HERE: Duration = Duration::from_secs(120);
/// The same in a guest, whose emulated processor is slower.
const GUEST: Duration = Duration::from_secs(600);
/// The same in virtual time, in which waiting costs nothing.
const VIRTUAL: Duration = Duration::from_secs(24 * 3600);

/// The longest that an arm may play, on the machine's clock; `lasts` is how long its
/// settings make it wait. Waits count twice, because timers are late on a busy machine.
#[must_use]
pub fn budget(lasts: Duration, clock: Clock, machine: Machine) -> Duration {
    let slack = match (clock, machine) {
        (Clock::Virtual, _) => VIRTUAL,
        (Clock::Real, Machine::Vm) => GUEST,
        (Clock::Real, Machine::Here) => HERE,
    };
    slack + 2 * lasts
}

impl ArmRun<'_> {
    /// How long the arm may play.
    #[must_use]
    pub fn budget(&self, machine: Machine) -> Duration {
        budget(self.lasts, self.env().clock, machine)
    }

    /// Awaits a play of this arm, or a part of one, for at most `budget`.
    ///
    /// # Errors
    /// [`Error::Deadline`] if it takes longer than the budget, with the host and the
    /// probe that the play waits for; the errors of the play.
    pub async fn within<T>(&self, budget: Duration, played: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(budget, played).await.unwrap_or_else(|_| {
            let (place, condition) = waits_for(self.network());
            Err(Error::Deadline { place, condition, waited: budget })
        })
    }
}

/// Where a play waits, and for what: a request that the kernel does not answer, or the
/// probe that began last and has no result.
fn waits_for(network: &Network) -> (String, String) {
    if let Some(wait) = network.pending().and_then(|pending| pending.now().pop()) {
        return (wait.host.clone(), format!("{}, which the kernel does not end", wait.what));
    }
    match network.journal().and_then(Journal::running) {
        Some(probe) => {
            let tries = probe.tries();
            (probe.host.into(), format!("the end of a probe: {tries}"))
        }
        None => ("the play".to_owned(), "its own end, and no probe is running".to_owned()),
    }
}
