//! A worker that panics: the user sees the panic message, even if a backtrace follows
//! it.

use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use faultlab_testkit::{Test, applicable, harness, reviewed, runtime};
use lab::Catalogue;
use lab::machine::here::Here;
use lab::machine::job::Job;
use lab::prelude::*;
use libtest_mimic::Arguments;

faultlab_testkit::tests![or_worker: a_panic_keeps_its_sentence_with_and_without_a_backtrace];

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let arms = |_: &Environment| {
        let network = Topology::new().hosts(["one", "other"]).link("one 10.0.0.1/24", "other 10.0.0.2/24");
        Arms::control("", network, ()).fault("", |_| ())
    };
    let play = async |_: &lab::stage::Stage<'_>, (): &()| panic!("the words of a panic");
    Catalogue::new(vec![Scenario::new(CARD, ("row", "cell"), arms, play)], |_| None)
});

const CARD: Card = Card::for_test("panics", "A play panics");

/// If this variable is set, this program makes a run and prints its error.
const RUN: &str = "FAULTLAB_TEST_RUN";

fn or_worker(tests: &[Test]) -> ExitCode {
    if let Some(status) = reviewed::as_worker(&CATALOGUE) {
        return status;
    }
    if std::env::var_os(RUN).is_some() {
        println!("{}", error());
        return ExitCode::SUCCESS;
    }
    harness::run(&Arguments::from_args(), tests, None)
}

fn error() -> String {
    let program = std::env::current_exe().expect("/proc/self/exe");
    let here = applicable(runtime().block_on(Here::find(&program))).here;
    let job = Job::run(CARD.name);
    let outcome = runtime().block_on(here.run(job, &mut |_| {}));
    outcome.expect_err("it panics").to_string()
}

fn a_panic_keeps_its_sentence_with_and_without_a_backtrace() {
    let program = std::env::current_exe().expect("/proc/self/exe");
    for backtrace in ["0", "1", "full"] {
        let mut again = Command::new(&program);
        let answer = again.env(RUN, "1").env("RUST_BACKTRACE", backtrace).output().expect("it runs");
        let said = String::from_utf8(answer.stdout).expect("text");
        assert!(
            said.contains("tests/panics.rs") && said.contains("the words of a panic"),
            "{backtrace}: {said}"
        );
    }
}
