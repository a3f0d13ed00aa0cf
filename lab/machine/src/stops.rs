//! Detects that this process was stopped (SIGSTOP) and continued (SIGCONT).

use std::cell::Cell;
use std::convert::Infallible;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use faultlab_base::error::{Error, Result};

/// Whether this process has received SIGCONT.
#[derive(Debug, Default)]
pub(super) struct Stops(Cell<bool>);

impl Stops {
    /// Records each SIGCONT, and calls `on_continued`.
    pub(super) async fn watch(&self, on_continued: &dyn Fn()) -> Result<Infallible> {
        let kind = SignalKind::from_raw(Signal::SIGCONT as i32);
        let mut continued = signal(kind).map_err(|e| Error::kernel("worker", "await SIGCONT", e))?;
        while continued.recv().await.is_some() {
            self.0.set(true);
            on_continued();
        }
        std::future::pending().await
    }

    /// Whether there was a stop since the last call.
    pub(super) fn taken(&self) -> bool {
        self.0.take()
    }
}
