//! Outcomes for tests.

use faultlab_model::made::outcome;
use faultlab_model::outcome::Verdict;

use crate::matrix::Column;

/// A column with one outcome, in which the fault arm met this.
#[must_use]
pub fn column(kernel: &str, verdict: Verdict, fault: &str, expected: bool) -> Column {
    Column::new(kernel, vec![outcome(kernel, verdict, fault, expected)])
}
