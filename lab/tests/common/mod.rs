//! The tests on a real kernel, which happen in namespaces of their own.
//!
//! A test program moves into fresh namespaces before it starts a thread, as a
//! worker does: as root of the machine or of a user namespace. Then its tests
//! run in parallel threads, each in network namespaces of its own.

mod frame;

use std::panic::resume_unwind;
use std::process::ExitCode;

use lab::isolation::{Privilege, isolate};
use lab::{Error, Result};
use libtest_mimic::Arguments;

use frame::Test;
pub(crate) use frame::{leave_out, tests};

/// Runs the tests, in namespaces that end with them.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::from_args();
    // What only lists the tests needs no namespaces.
    let isolated = if arguments.list { Ok(()) } else { isolate(Privilege::at_hand(), None) };
    match isolated {
        Ok(()) => frame::run(&arguments, tests, None),
        Err(Error::Missing(missing)) => frame::run(&arguments, tests, Some(&missing.to_string())),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The value; the test is left out where something named is missing.
pub fn applicable<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(Error::Missing(missing)) => leave_out(missing.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Runs `body` on a thread of its own, whose namespace the others do not see.
pub fn alone(body: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(body).join() {
        resume_unwind(panic);
    }
}
