//! A column of a matrix for tests, also of other crates (feature `made`).

use faultlab_model::made::outcome;
use faultlab_model::outcome::Verdict;

use crate::matrix::Column;

/// A column with one outcome, with `fault` as the symptom cell of its fault arm.
#[must_use]
pub fn column(kernel: &str, verdict: Verdict, fault: &str, expected: bool) -> Column {
    Column::new(kernel, vec![outcome(kernel, verdict, fault, expected)])
}
