//! Helpers for tests: faultlab's own, and those of packages with scenarios of
//! their own. The crate knows no scenario.
//!
//! | module | what it is |
//! |---|---|
//! | [`reviewed`] | a test program for the scenarios of a catalogue |
//! | [`harness`] | tests that report at run time why they are left out |
//! | [`isolated`] | tests on the running kernel, in namespaces of their own |
//! | [`routed`] | a small network, built by hand |
//! | [`command`] | a program started as a user starts it, and its answer |
//! | [`terminal`] | a pseudoterminal: keys and a screen |
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
//! A test that needs what the machine lacks is left out: it is reported as
//! ignored, with the reason. If the environment variable `FAULTLAB_REQUIRE_ALL`
//! is 1, it fails.

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

/// How long a test waits for a condition, even on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
