//! The frame of the tests on a real kernel.
//!
//! A test program moves into fresh namespaces before it starts a thread, as a
//! worker does: as root of the machine or of a user namespace. Then its tests
//! run in parallel threads, each in network namespaces of its own.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use lab::machine::isolation::{Privilege, isolate};
use lab::{Error, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test and its name. It fails by a panic.
pub type Test = (&'static str, fn());

/// Makes the functions that it names the tests of the program.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            common::main(&[$((stringify!($test), $test)),+])
        }
    };
}
pub(crate) use tests;

/// Runs the tests, in namespaces that end with them.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::from_args();
    // What only lists the tests needs no namespaces.
    let isolated = if arguments.list { Ok(()) } else { isolate(Privilege::at_hand(), None) };
    let nowhere = match isolated {
        Ok(()) => None,
        Err(Error::Missing(missing)) => Some(missing.to_string()),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let trials = tests.iter().map(|&(name, test)| {
        let nowhere = nowhere.clone();
        Trial::ignorable_test(name, move || nowhere.map_or_else(|| run(test), |why| without(&why)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Why a test ended early: something named is missing.
struct LeftOut(String);

fn run(test: fn()) -> Result<Completion, Failed> {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(()) => Ok(Completion::Completed),
        Err(panic) => match panic.downcast::<LeftOut>() {
            Ok(left_out) => without(&left_out.0),
            Err(panic) => Err(sentence(&*panic).into()),
        },
    }
}

fn sentence(panic: &(dyn Any + Send)) -> String {
    let literal = || panic.downcast_ref::<&str>().map(ToString::to_string);
    panic.downcast_ref::<String>().cloned().or_else(literal).unwrap_or_default()
}

/// A test is left out, which is a failure under FAULTLAB_REQUIRE_ALL=1.
fn without(why: &str) -> Result<Completion, Failed> {
    if env::var_os("FAULTLAB_REQUIRE_ALL").is_some_and(|v| v == "1") {
        return Err(why.into());
    }
    Ok(Completion::ignored_with(format!("left out: {why}")))
}

/// Ends the test here: what it needs is missing.
pub fn leave_out(why: impl Into<String>) -> ! {
    resume_unwind(Box::new(LeftOut(why.into())))
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
