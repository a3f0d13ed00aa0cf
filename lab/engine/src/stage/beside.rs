//! Somebody who sits beside an arm in a shell, while its play stays where the
//! fault stands.

use std::cell::RefCell;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

/// What is told between a play that stays and who sits beside it.
#[derive(Debug)]
pub(super) struct Beside {
    stays: Notify,
    ask: UnboundedSender<Question>,
    /// Until the play stays.
    asked: RefCell<Option<UnboundedReceiver<Question>>>,
}

/// Whether it is cured: answered when that was looked at.
type Question = oneshot::Sender<()>;

impl Beside {
    pub(super) fn new() -> Self {
        let (ask, asked) = unbounded_channel();
        Self { stays: Notify::new(), ask, asked: RefCell::new(Some(asked)) }
    }

    /// Stays, and has a look whenever it is asked for; once.
    pub(super) async fn stay(&self, mut look: impl AsyncFnMut()) {
        let Some(mut asked) = self.asked.take() else { return };
        self.stays.notify_one();
        while let Some(question) = asked.recv().await {
            look().await;
            // Who asked may have gone.
            let _ = question.send(());
        }
    }

    /// Waits until the play stays.
    pub(super) async fn stays(&self) {
        self.stays.notified().await;
    }

    /// Asks, and waits until it was looked.
    pub(super) async fn ask(&self) {
        let (question, answer) = oneshot::channel();
        if self.ask.send(question).is_ok() {
            let _ = answer.await;
        }
    }
}
