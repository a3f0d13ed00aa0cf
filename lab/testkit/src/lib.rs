//! Helpers for the tests of faultlab, and of other packages with scenarios. The crate
//! depends on no scenario.
//!
//! | module | what it is |
//! |---|---|
//! | [`reviewed`] | a test program for the scenarios of a catalogue |
//! | [`harness`] | tests that can be left out at run time, with a reason |
//! | [`isolated`] | tests on the running kernel, in new namespaces |
//! | [`routed`] | a small network, built by hand |
//! | [`command`] | a program run as a user does, and its output |
//! | [`terminal`] | a pseudoterminal |
//! | [`session`] | a program and all processes that it starts |
//!
//! The whole test program of an author is
//!
//! ```no_run
//! # static CATALOGUE: std::sync::LazyLock<lab::Catalogue> =
//! #     std::sync::LazyLock::new(|| lab::Catalogue::new(vec![], |_| None));
//! use std::path::Path;
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     faultlab_testkit::scenarios(&CATALOGUE, Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots"))
//! }
//! ```
//!
//! with `harness = false` in its `[[test]]` section.
//!
//! A test whose requirements the machine lacks is left out: it is reported as ignored, with
//! the reason. With `FAULTLAB_REQUIRE_ALL=1` in the environment it fails instead.

pub mod command;
pub mod harness;
pub mod isolated;
pub mod reviewed;
pub mod routed;
pub mod session;
pub mod terminal;

use std::time::Duration;

pub use command::{Answer, answer};
pub use harness::{Test, leave_out, require_all};
pub use isolated::{alone, alone_async, applicable, runtime};
pub use reviewed::{Reviewed, scenarios};
pub use session::Session;
pub use terminal::Terminal;

/// How long a test waits for a condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
