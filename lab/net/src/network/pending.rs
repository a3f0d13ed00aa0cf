//! What the lab waits for at the hosts of a network: requests that the kernel may
//! block on, and anything else that sleeps in the kernel for the lab.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::Instant;

/// What the lab waits for in one network.
#[derive(Debug, Default)]
pub struct Pending {
    all: RefCell<Vec<Weak<PendingWait>>>,
    begun: Notify,
}

/// Something that the lab waits for.
#[derive(Debug)]
pub struct PendingWait {
    /// At which host.
    pub host: String,
    /// What it is.
    pub what: String,
    /// Since when.
    pub since: Instant,
    /// The /proc directory of the waiting task, once the task has set it.
    pub task: Arc<OnceLock<PathBuf>>,
}

impl Pending {
    pub(super) fn begin(&self, host: &str, what: String) -> Rc<PendingWait> {
        let wanted =
            Rc::new(PendingWait { host: host.to_owned(), what, since: Instant::now(), task: Arc::default() });
        let mut all = self.all.borrow_mut();
        all.retain(|wanted| wanted.strong_count() > 0);
        all.push(Rc::downgrade(&wanted));
        self.begun.notify_one();
        wanted
    }

    /// What is being waited for now.
    #[must_use]
    pub fn now(&self) -> Vec<Rc<PendingWait>> {
        self.all.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits until something is added.
    pub async fn more(&self) {
        self.begun.notified().await;
    }
}
