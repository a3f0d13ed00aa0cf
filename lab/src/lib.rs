//! The library of faultlab: it builds networks of namespaces, causes faults in
//! them, and reports what happened. It never names a scenario.
//!
//! This crate is a facade over the other crates of the library, for authors
//! of scenarios. Their tests use `faultlab-testkit`. Tests of network code need
//! `faultlab-net` alone.
//!
//! # A map of the code
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | a fault as a value: card, arms, eras (pure) |
//! | [`outcome`], [`snapshot`] | the table, the verdict, the comparison (pure) |
//! | [`capture`], [`hops`] | the frames of an arm, and the fate of each packet (pure) |
//! | [`topology`] | hosts, routers, links and rules as values (pure) |
//! | [`network`] | a topology made real |
//! | [`wire`] | a link whose frames pass through this process |
//! | [`probe`] | probes: connections, flows, blocking calls |
//! | [`evidence`], [`task`] | observations: counters, sockets, the kernel log, tasks |
//! | [`why`] | explanations (pure) |
//! | [`remedies`] | which remedy works where, by the reviewed outcomes (pure) |
//! | [`stage`], [`perform`] | one arm while it runs; all arms of a scenario |
//! | [`machine`] | where a scenario runs, and what the machine allows |
//! | [`report`] | output formats |
//! | [`cli`] | one file per verb |
//! | [`guide`] | how to write a scenario of your own |
//!
//! One thread runs a scenario, on one tokio runtime; captures and calls that
//! may block have threads of their own. A namespace is a file
//! descriptor that the thread enters and leaves. A socket stays in the
//! namespace where it was created.

pub mod guide;
pub mod prelude;

pub use faultlab_base::{Error, Missing, Result, error, limits, terminal, text};
pub use faultlab_cli as cli;
pub use faultlab_engine::{Catalogue, catalogue, evidence, perform, probe, remedies, stage, task};
pub use faultlab_explain::{hops, why};
pub use faultlab_kernels as kernels;
pub use faultlab_machine as machine;
pub use faultlab_model::{outcome, recording, snapshot};
pub use faultlab_net::{capture, conntrack, isolation, kernel, network, packet, tap, topology, wire};
pub use faultlab_report as report;

/// A fault as a value: its card, arms and eras, and the play that shows it.
pub mod scenario {
    pub use faultlab_engine::scenario::*;
    pub use faultlab_model::scenario::*;
}
