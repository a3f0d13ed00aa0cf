//! Outcomes as KTAP, version 1 (Documentation/dev-tools/ktap.rst): a test per
//! kernel, with the scenarios as subtests.

use std::fmt::Write;

use super::matrix::{Column, NOT_RUN};
use faultlab_base::text;
use faultlab_model::outcome::{Outcome, Verdict};

/// Writes the outcomes. Those that are not as expected, or have no reference, are followed by
/// their reason as a diagnostic line.
#[must_use]
pub fn ktap(columns: &[Column]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", columns.len());
    for (number, column) in columns.iter().enumerate() {
        let _ = writeln!(text, "  KTAP version 1\n  1..{}", column.outcomes.len() + column.not_run.len());
        for (number, outcome) in column.outcomes.iter().enumerate() {
            let _ = writeln!(text, "  {}", line(number + 1, outcome));
            if let (true, Some(reason)) = (!outcome.expected || outcome.without_reference, &outcome.reason) {
                let _ = writeln!(text, "  # {}", sentence(reason));
            }
        }
        for (number, scenario) in (column.outcomes.len() + 1..).zip(&column.not_run) {
            let _ = writeln!(text, "  not ok {number} {} # {NOT_RUN}", name(scenario));
        }
        let complete = column.not_run.is_empty();
        let ok = if complete && column.outcomes.iter().all(|o| o.expected) { "ok" } else { "not ok" };
        let _ = writeln!(text, "{ok} {} {}", number + 1, name(&column.kernel));
    }
    text
}

fn line(number: usize, outcome: &Outcome) -> String {
    let ok = if outcome.expected { "ok" } else { "not ok" };
    let directive = match outcome.verdict {
        Verdict::NotApplicable => {
            let reason = outcome.reason.as_deref().unwrap_or("not applicable");
            format!(" # SKIP {}", sentence(reason))
        }
        _ if outcome.nothing_differs_without_the_cause() => " # nothing differs without its cause".to_owned(),
        verdict => format!(" # {verdict}"),
    };
    format!("{ok} {number} {}{directive}", name(&outcome.scenario))
}

/// The name of a test: one line without `#`, which would start a directive.
fn name(text: &str) -> String {
    text::line(&text.replace(['#', '\n'], "_")).into_owned()
}

/// Text after `#`: one line.
fn sentence(text: &str) -> String {
    text::line(&text.replace('\n', " ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::column;

    #[test]
    fn what_was_not_run_is_in_the_plan_and_not_ok() {
        let mut column = column("old", Verdict::Reproduced, "reset", true);
        column.not_run = vec!["probe-timeout".to_owned()];
        insta::assert_snapshot!(ktap(&[column]), @r"
        KTAP version 1
        1..1
          KTAP version 1
          1..2
          ok 1 beyond-window # reproduced
          not ok 2 probe-timeout # not run: interrupted
        not ok 1 old
        ");
    }

    #[test]
    fn a_kernel_is_a_test_and_a_scenario_a_subtest() {
        let columns = [
            column("old", Verdict::Reproduced, "reset", true),
            column("new", Verdict::Failed, "open", false),
        ];
        insta::assert_snapshot!(ktap(&columns), @r"
        KTAP version 1
        1..2
          KTAP version 1
          1..1
          ok 1 beyond-window # reproduced
        ok 1 old
          KTAP version 1
          1..1
          not ok 1 beyond-window # failed
          # nothing was reproduced
        not ok 2 new
        ");
    }
}
