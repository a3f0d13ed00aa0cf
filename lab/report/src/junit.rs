//! Outcomes as a JUnit report: a kernel is a suite, a scenario a case.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::matrix::Column;
use faultlab_model::outcome::{Outcome, Verdict};

/// Writes the outcomes as XML.
///
/// # Errors
/// None that the writer has ever met; it returns them all the same.
pub fn junit(columns: &[Column]) -> io::Result<String> {
    let mut report = Report::new("faultlab");
    for column in columns {
        let mut suite = TestSuite::new(column.kernel.as_str());
        suite.add_test_cases(column.outcomes.iter().map(|o| case(&column.kernel, o)));
        report.add_test_suite(suite);
    }
    report.to_string().map_err(io::Error::other)
}

fn case(kernel: &str, outcome: &Outcome) -> TestCase {
    let reason = outcome.reason.clone().unwrap_or_else(|| outcome.verdict.to_string());
    let status = match (outcome.verdict, outcome.expected) {
        (Verdict::NotApplicable, _) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason);
            status
        }
        (_, true) => TestCaseStatus::success(),
        (verdict, false) => {
            let kind =
                if verdict == Verdict::Failed { NonSuccessKind::Error } else { NonSuccessKind::Failure };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(reason);
            status
        }
    };
    let mut case = TestCase::new(outcome.scenario.as_str(), status);
    case.set_classname(kernel);
    case.set_time(Duration::from_secs_f64(outcome.seconds.wall.max(0.0)));
    case
}
