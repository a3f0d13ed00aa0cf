//! Tests that can say at run time why they are left out.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test and its name. It fails by a panic.
pub type Test = (&'static str, fn());

/// Makes the functions that it names the tests of the program, which `$main`
/// runs.
macro_rules! tests {
    ($main:path: $($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $main(&[$((stringify!($test), $test)),+])
        }
    };
}
pub(crate) use tests;

/// Runs the tests, or leaves all of them out where there is a reason for that.
pub fn run(arguments: &Arguments, tests: &[Test], nowhere: Option<&str>) -> ExitCode {
    let trials = tests.iter().map(|&(name, test)| {
        let nowhere = nowhere.map(str::to_owned);
        Trial::ignorable_test(name, move || nowhere.map_or_else(|| one(test), |why| without(&why)))
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

/// Why a test ended early: something named is missing.
struct LeftOut(String);

fn one(test: fn()) -> Result<Completion, Failed> {
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
