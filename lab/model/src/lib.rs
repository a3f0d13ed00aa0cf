//! The data model of faults and their results: scenarios, outcomes, snapshots, and
//! the recording of an arm. No I/O.

#[cfg(any(test, feature = "made"))]
pub mod made;
pub mod outcome;
pub mod recording;
pub mod scenario;
pub mod snapshot;
