//! Tests on the running kernel, isolated from the machine.
//!
//! Before it starts a thread, the test program moves into new namespaces, as a worker
//! does: as root of the machine, or of a new user namespace. Its tests then run in
//! parallel threads, each with its own network namespaces.

use std::panic::resume_unwind;
use std::process::ExitCode;

use lab::isolation::{Privilege, isolate};
use lab::{Error, Result};
use libtest_mimic::Arguments;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::harness::{self, Test, leave_out};

/// Moves this process into new namespaces, and runs the tests there.
#[must_use]
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing the tests needs no namespaces.
    let isolated = if arguments.list { Ok(()) } else { isolate(Privilege::at_hand(), None) };
    match isolated {
        Ok(()) => harness::run(&arguments, tests, None),
        Err(Error::Missing(missing)) => harness::run(&arguments, tests, Some(&missing.to_string())),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The value of a result. On [`Error::Missing`] the test is left out.
///
/// # Panics
/// On any other error.
pub fn applicable<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(Error::Missing(missing)) => leave_out(missing.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Runs `body` on a new thread, because a network namespace belongs to a thread. Passes a
/// panic on.
pub fn alone(body: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(body).join() {
        resume_unwind(panic);
    }
}

/// Runs `body` on a new thread with its own tokio runtime and `LocalSet`.
pub fn alone_async<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    alone(|| LocalSet::new().block_on(&runtime(), async { body().await }));
}

/// The tokio runtime that the lab needs: current-thread, with all drivers.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime needs an epoll descriptor")
}
