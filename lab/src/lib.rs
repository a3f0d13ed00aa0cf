//! The engine of faultlab: it builds networks of namespaces, breaks them, and
//! says what happened. It never names a scenario.
//!
//! # A map of the code
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | what a fault is: card, arms and their edits, eras (pure) |
//! | [`outcome`], [`snapshot`] | the table, the verdict, the comparison (pure) |
//! | [`capture`], [`hops`] | the frames of an arm, and what became of each packet (pure) |
//! | [`topology`] | hosts, routers, links and rules as values (pure) |
//! | [`network`] | a topology made real |
//! | [`wire`] | a link whose frames pass through this process |
//! | [`probe`] | what is tried |
//! | [`evidence`], [`task`] | what is seen |
//! | [`why`] | what explains it (pure) |
//! | [`stage`], [`perform`] | one arm while it runs; all arms of a scenario |
//! | [`machine`] | where it runs, and what can be done there |
//! | [`report`] | how it is told |
//! | [`cli`] | one file per verb |
//! | [`prelude`] | what a scenario is written with |
//! | [`guide`] | how to write a scenario of your own |
//!
//! One thread runs everything, on one tokio runtime. A namespace is a file
//! descriptor that the thread enters and leaves; a socket stays in the
//! namespace that it was made in.

pub mod capture;
pub mod catalogue;
pub mod cli;
pub mod error;
pub mod evidence;
pub mod guide;
pub mod hops;
pub mod kernel;
pub mod machine;
pub mod network;
pub mod outcome;
pub mod perform;
pub mod prelude;
pub mod probe;
pub mod report;
pub mod scenario;
pub mod snapshot;
pub mod stage;
pub mod task;
mod tcp_flags;
pub mod topology;
pub mod why;
pub mod wire;

pub use catalogue::Catalogue;
pub use error::{Error, Missing, Result};
