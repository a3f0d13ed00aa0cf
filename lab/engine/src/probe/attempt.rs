//! A request that the kernel may block for ever.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::task;
use faultlab_base::error::{Error, Result};
use faultlab_net::network::pending::PendingWait;
use faultlab_net::network::{Host, Namespace};

/// Work on a separate thread. The kernel may block that thread in an uninterruptible
/// sleep while the lab observes it.
#[derive(Debug)]
#[must_use = "an attempt is watched with `within`"]
pub struct Attempt<T> {
    done: oneshot::Receiver<T>,
    result: Option<T>,
    _wanted: Rc<PendingWait>,
}

impl<T: Send + 'static> Attempt<T> {
    /// Begins `work`, which receives the host's namespace.
    ///
    /// # Errors
    /// If no thread can be created, or no descriptor is left (EMFILE).
    pub fn begin(at: &Host, work: impl FnOnce(&Namespace) -> T + Send + 'static) -> Result<Self> {
        let (sender, done) = oneshot::channel();
        let namespace = at.namespace().try_clone()?;
        let wanted = at.record_wait("a request");
        let task = Arc::clone(&wanted.task);
        let (ready, is_ready) = mpsc::channel();
        let body = move || {
            let remembered = Namespace::remember();
            let failed = remembered.is_err();
            // `begin` waits for this message.
            let _ = ready.send(remembered);
            if failed {
                return;
            }
            task::place_of_this().map(|place| task.set(place));
            // The scenario may have dropped the attempt: then there is no receiver.
            let _ = sender.send(work(&namespace));
        };
        thread::Builder::new()
            .name("attempt".into())
            .spawn(body)
            .map_err(|e| Error::kernel(at.name(), "start a thread", e))?;
        is_ready.recv().map_err(|e| Error::kernel(at.name(), "start a thread", io::Error::other(e)))??;
        Ok(Self { done, result: None, _wanted: wanted })
    }

    /// The result, if the work finishes within `patience` from now.
    pub async fn within(&mut self, patience: Duration) -> Option<&T> {
        if self.result.is_none()
            && let Ok(Ok(result)) = timeout(patience, &mut self.done).await
        {
            self.result = Some(result);
        }
        self.result.as_ref()
    }
    /// The result, if the work has finished.
    pub fn take(mut self) -> Option<T> {
        self.result.take().or_else(|| self.done.try_recv().ok())
    }
}
