//! A shell beside an arm, while the play holds the fault.

use std::cell::RefCell;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

/// The channel between a play that holds its fault and the shell beside it.
#[derive(Debug)]
pub(crate) struct ShellSession {
    held: Notify,
    ask: UnboundedSender<Question>,
    /// `Some` until the play holds its fault.
    asked: RefCell<Option<UnboundedReceiver<Question>>>,
}

/// A question whether the fault is cured, answered after the check.
type Question = oneshot::Sender<()>;

impl ShellSession {
    pub(crate) fn new() -> Self {
        let (ask, asked) = unbounded_channel();
        Self { held: Notify::new(), ask, asked: RefCell::new(Some(asked)) }
    }

    /// Calls `recheck` on every request, until this future is dropped. A second call
    /// returns at once.
    pub(crate) async fn hold(&self, mut recheck: impl AsyncFnMut()) {
        let Some(mut asked) = self.asked.take() else { return };
        self.held.notify_one();
        while let Some(question) = asked.recv().await {
            recheck().await;
            // The requester may have gone.
            let _ = question.send(());
        }
    }

    /// Waits until the play holds its fault.
    pub(crate) async fn is_held(&self) {
        self.held.notified().await;
    }

    /// Requests a check, and waits until the play has made it.
    pub(crate) async fn recheck(&self) {
        let (question, answer) = oneshot::channel();
        if self.ask.send(question).is_ok() {
            let _ = answer.await;
        }
    }
}
