//! Outcomes as a JUnit report: a suite per kernel, a case per scenario.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::matrix::{Column, NOT_RUN};
use faultlab_base::text;
use faultlab_model::outcome::{Outcome, Verdict};

/// Writes the outcomes as XML.
///
/// # Errors
/// Errors of the writer, none of which are expected.
pub fn junit(columns: &[Column]) -> io::Result<String> {
    let mut report = Report::new("faultlab");
    for column in columns {
        let kernel = text::line(&column.kernel);
        let mut suite = TestSuite::new(&*kernel);
        suite.add_test_cases(column.outcomes.iter().map(|o| case(&kernel, o)));
        suite.add_test_cases(column.not_run.iter().map(|name| not_run(&kernel, name)));
        report.add_test_suite(suite);
    }
    report.to_string().map_err(io::Error::other)
}

/// Text without characters that XML 1.0 forbids.
fn plain(text: &str) -> String {
    text::lines(text).into_owned()
}

/// The case of a scenario without an outcome, because the run was interrupted.
fn not_run(kernel: &str, scenario: &str) -> TestCase {
    let mut status = TestCaseStatus::skipped();
    status.set_message(NOT_RUN);
    let mut case = TestCase::new(&*text::line(scenario), status);
    case.set_classname(kernel);
    case
}

fn case(kernel: &str, outcome: &Outcome) -> TestCase {
    let reason = outcome.reason.as_deref().map_or_else(|| outcome.verdict.to_string(), plain);
    let status = match (outcome.verdict, outcome.expected) {
        (Verdict::NotApplicable, _) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.clone());
            status
        }
        (_, true) => TestCaseStatus::success(),
        (verdict, false) => {
            let kind =
                if verdict == Verdict::Failed { NonSuccessKind::Error } else { NonSuccessKind::Failure };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(reason.clone());
            status
        }
    };
    let mut case = TestCase::new(&*text::line(&outcome.scenario), status);
    if outcome.without_reference && outcome.expected {
        // A success has no message.
        case.set_system_out(reason);
    }
    case.set_classname(kernel);
    // A time that is not a valid duration becomes 0.
    case.set_time(Duration::try_from_secs_f64(outcome.seconds.wall).unwrap_or_default());
    case
}
