//! Samples where the tasks sleep that the lab waits for.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::task;
use faultlab_model::recording::{Task, Wait};
use faultlab_net::network::Network;
use faultlab_net::network::pending::PendingWait;

/// Anything shorter does not count as a wait.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The longest interval between two samples.
const LONGEST_INTERVAL: Duration = Duration::from_secs(64);

/// The observed waits of a network.
#[derive(Debug, Default)]
pub struct Waits {
    waits: RefCell<Vec<(Weak<PendingWait>, Wait)>>,
    kernel: RefCell<Vec<Task>>,
}

impl Waits {
    /// Samples the waits as long as there are any, at intervals of 1 s, 2 s, 4 s and so
    /// on up to 64 s. Without a wait, nothing wakes up.
    pub async fn sample(&self, network: &Network) -> Infallible {
        let Some(pending) = network.pending() else { return std::future::pending().await };
        loop {
            pending.more().await;
            let mut pause = SHORTEST_WAIT;
            loop {
                sleep(pause).await;
                if pending.now().iter().filter(|wanted| self.record(wanted)).count() == 0 {
                    break;
                }
                for task in task::of_kernel() {
                    let mut known = self.kernel.borrow_mut();
                    known.retain(|other| other.stack != task.stack);
                    known.push(task);
                }
                pause = (2 * pause).min(LONGEST_INTERVAL);
            }
        }
    }

    /// Records a wait. Returns whether it continues.
    fn record(&self, one: &Rc<PendingWait>) -> bool {
        let task = one.task.get().map(|place| task::at(place));
        if task == Some(None) {
            return false;
        }
        let waited = one.since.elapsed();
        if waited >= SHORTEST_WAIT {
            let (host, what) = (one.host.clone(), one.what.clone());
            let wait = Wait { host, what, waited, task: task.flatten() };
            let mut waits = self.waits.borrow_mut();
            let same = |known: &&mut (Weak<PendingWait>, Wait)| known.0.as_ptr() == Rc::as_ptr(one);
            match waits.iter_mut().find(same) {
                Some(known) => known.1 = wait,
                None => waits.push((Rc::downgrade(one), wait)),
            }
        }
        true
    }

    /// The waits, and the kernel threads that slept meanwhile.
    #[must_use]
    pub fn end(self) -> (Vec<Wait>, Vec<Task>) {
        let waits = self.waits.into_inner().into_iter().map(|(_, wait)| wait).collect();
        (waits, self.kernel.into_inner())
    }
}
