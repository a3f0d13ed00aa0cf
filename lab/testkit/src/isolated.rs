//! Tests on the running kernel, in namespaces of their own.
//!
//! The test program moves into new namespaces before it starts a thread, as a
//! worker does, as root of the machine or of a user namespace. Its tests then
//! run in parallel threads, each in its own network namespaces.

use std::panic::resume_unwind;
use std::process::ExitCode;

use lab::isolation::{Privilege, isolate};
use lab::{Error, Result};
use libtest_mimic::Arguments;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::harness::{self, Test, leave_out};

/// Runs the tests in namespaces that end with them.
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

/// The value. If a requirement is missing, the test is left out.
pub fn applicable<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(Error::Missing(missing)) => leave_out(missing.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Runs `body` on its own thread, whose namespace the others do not see.
pub fn alone(body: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(body).join() {
        resume_unwind(panic);
    }
}

/// Runs `body` on its own thread, with its own runtime. It may spawn local
/// tasks.
pub fn alone_async<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    alone(|| LocalSet::new().block_on(&runtime(), async { body().await }));
}

/// The runtime that the lab needs: one thread, and all drivers.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime needs an epoll descriptor")
}
