//! The summary of a run: counts of outcomes.

use faultlab_model::outcome::{Outcome, Verdict};

/// The number of outcomes by verdict.
#[derive(Debug, Default)]
pub struct Tally {
    all: usize,
    reproduced: usize,
    immune: usize,
    not_applicable: usize,
    without_difference: usize,
    failed: usize,
    unexpected: usize,
    /// Expected outcomes that were judged without a reviewed snapshot.
    without_reference: usize,
}

impl Tally {
    /// Counts outcomes.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.all += 1;
            match outcome.verdict {
                Verdict::Reproduced => tally.reproduced += 1,
                Verdict::Immune => tally.immune += 1,
                Verdict::NotApplicable => tally.not_applicable += 1,
                Verdict::Failed if outcome.expected => tally.without_difference += 1,
                Verdict::Failed => tally.failed += 1,
            }
            tally.unexpected += usize::from(!outcome.expected);
            tally.without_reference += usize::from(outcome.expected && outcome.without_reference);
        }
        tally
    }

    /// Whether the run has failed (exit status 1): an outcome is unexpected or, if
    /// `require_all`, not applicable.
    #[must_use]
    pub fn failed(&self, require_all: bool) -> bool {
        self.unexpected > 0 || (require_all && self.not_applicable > 0)
    }

    /// The numbers: `9 reproduced, 3 immune`.
    #[must_use]
    pub fn counts(&self) -> String {
        let counts = [
            (self.reproduced, "reproduced"),
            (self.immune, "immune"),
            (self.not_applicable, "not applicable"),
            (self.without_difference, "without a difference"),
            (self.failed, "failed"),
        ];
        let parts: Vec<_> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        parts.join(", ")
    }

    /// The last line of a run.
    #[must_use]
    pub fn sentence(&self) -> String {
        let outcomes = if self.all == 1 { "outcome" } else { "outcomes" };
        let expected = match (self.unexpected, self.without_reference) {
            (0, 0) => "all as expected".to_owned(),
            (0, n) if n == self.all => "no reference".to_owned(),
            (0, n) => format!("{n} without a reference, the others as expected"),
            (n, _) => format!("{n} NOT as expected"),
        };
        format!("{} {outcomes}: {}; {expected}", self.all, self.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::column;

    #[test]
    fn a_fault_without_its_cause_is_no_failure() {
        let tally = |verdict, expected| Tally::of(&column("6.1", verdict, "open", expected).outcomes);
        let causeless = tally(Verdict::Failed, true);
        assert_eq!(causeless.sentence(), "1 outcome: 1 without a difference; all as expected");
        assert!(!causeless.failed(true));
        let failed = tally(Verdict::Failed, false);
        assert_eq!(failed.sentence(), "1 outcome: 1 failed; 1 NOT as expected");
        assert!(failed.failed(false));
    }

    #[test]
    fn a_tally_names_outcomes_without_a_reference() {
        let outcome = |without_reference| Outcome {
            without_reference,
            ..faultlab_model::made::outcome("6.1", Verdict::Reproduced, "reset", true)
        };
        let [compared, other] = [outcome(false), outcome(true)];
        let sentence = |outcomes: &[&Outcome]| {
            assert!(!Tally::of(outcomes.iter().copied()).failed(false));
            Tally::of(outcomes.iter().copied()).sentence()
        };
        assert_eq!(sentence(&[&compared]), "1 outcome: 1 reproduced; all as expected");
        assert_eq!(sentence(&[&other]), "1 outcome: 1 reproduced; no reference");
        assert_eq!(
            sentence(&[&compared, &other]),
            "2 outcomes: 2 reproduced; 1 without a reference, the others as expected"
        );
    }
}
