//! A test harness, with libtest's command line, in which a test can be left out at run time
//! with a reason. Rust's own harness can ignore tests at compile time only.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test and its name. It fails by panicking.
pub type Test = (&'static str, fn());

/// Defines the `main` of a test program with these test functions. The function before
/// the colon runs them: it takes `&[Test]` and returns an `ExitCode`.
///
/// ```no_run
/// fn two_and_two_are_four() {
///     assert_eq!(2 + 2, 4);
/// }
///
/// faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time: two_and_two_are_four];
/// ```
#[macro_export]
macro_rules! tests {
    ($main:path: $($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $main(&[$((stringify!($test), $test)),+])
        }
    };
}

/// Runs tests sequentially, whatever `--test-threads` says: for tests that observe the
/// whole machine.
#[must_use]
pub fn one_at_a_time(tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    run(&arguments, tests, None)
}

/// Runs two tests at a time by default: for tests that keep a processor busy, such as those
/// with a guest or a browser.
#[must_use]
pub fn two_at_a_time(tests: &[Test]) -> ExitCode {
    at_once(2, tests)
}

/// Runs four tests at a time by default: for tests that mostly wait for kernel timers.
#[must_use]
pub fn four_at_a_time(tests: &[Test]) -> ExitCode {
    at_once(4, tests)
}

fn at_once(threads: usize, tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    run(&arguments, tests, None)
}

/// Runs the tests. If `nowhere` is given, none can run here, and all are left out for that
/// reason.
#[must_use]
pub fn run(arguments: &Arguments, tests: &[Test], nowhere: Option<&str>) -> ExitCode {
    let trials = tests.iter().map(|&(name, test)| {
        let nowhere = nowhere.map(str::to_owned);
        Trial::ignorable_test(name, move || nowhere.map_or_else(|| one(test), |why| without(&why)))
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

/// The payload with which [`leave_out`] unwinds: the missing requirement.
struct LeftOut(String);

/// Ends the test, because a requirement is missing. Unwinds without calling the panic hook.
pub fn leave_out(why: impl Into<String>) -> ! {
    resume_unwind(Box::new(LeftOut(why.into())))
}

/// Whether FAULTLAB_REQUIRE_ALL=1 is set: then a test fails instead of being left out.
#[must_use]
pub fn require_all() -> bool {
    env::var_os("FAULTLAB_REQUIRE_ALL").is_some_and(|value| value == "1")
}

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

/// The result of a test that cannot run here: ignored, with the reason.
///
/// # Errors
/// With FAULTLAB_REQUIRE_ALL=1.
pub fn without(why: &str) -> Result<Completion, Failed> {
    if require_all() {
        return Err(why.into());
    }
    Ok(Completion::ignored_with(format!("left out: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_and_says_why() {
        let failed = one(|| panic!("{} apples", 2)).err().expect("it panics");
        assert_eq!(failed.message(), Some("2 apples"));
    }

    #[test]
    fn what_is_missing_is_a_failure_only_where_all_is_required() {
        let end = one(|| leave_out("there is no /dev/kvm"));
        assert_eq!(end.is_err(), require_all());
        if let Err(failed) = end {
            assert_eq!(failed.message(), Some("there is no /dev/kvm"));
        }
    }
}
