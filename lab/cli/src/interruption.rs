//! Signals that ask this program to end: Ctrl-C, SIGTERM, SIGHUP.

use std::process;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use tokio::runtime::Builder;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;

use super::Stop;
use faultlab_base::error::Error;

/// The streams of SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Installs the signal handlers, in the current runtime.
    pub(super) fn listen() -> Result<Self, Stop> {
        let listen = |kind| signal(kind).map_err(|e| Error::kernel("faultlab", "sigaction", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}

/// The first signal asks the run to end: finished outcomes are still printed. The second
/// ends the process at once, with status 128 plus the number of the signal.
#[derive(Debug, Clone)]
pub(super) struct Interruption(watch::Receiver<Option<Signal>>);

impl Interruption {
    /// Handles the signals on another thread from now on, because the calling thread may
    /// block on a full pipe.
    pub(super) fn listen() -> Result<Self, Stop> {
        let (first, interruption) = watch::channel(None);
        let (tell, listening) = mpsc::channel();
        let started = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let failed = |e| Stop::from(Error::kernel("faultlab", "start the runtime of signals", e));
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(failed(error)))),
            };
            runtime.block_on(async {
                let mut signals = match Signals::listen() {
                    Ok(signals) => signals,
                    Err(stop) => return drop(tell.send(Err(stop))),
                };
                let _ = tell.send(Ok(()));
                first.send_replace(Some(signals.next().await));
                // Workers and guests die with this process: PR_SET_PDEATHSIG.
                process::exit(128 + signals.next().await as i32);
            });
        });
        started.map_err(|e| Error::kernel("faultlab", "start the thread of signals", e))?;
        listening
            .recv()
            .unwrap_or_else(|_| Err(Error::Lab("the thread of signals ended".to_owned()).into()))?;
        Ok(Self(interruption))
    }

    /// The first signal; `None` if there was none yet.
    pub(super) fn signal(&self) -> Option<Signal> {
        *self.0.borrow()
    }

    /// Waits for the first signal.
    pub(super) async fn arrived(&self) {
        if self.0.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
