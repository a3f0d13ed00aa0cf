//! Networks of namespaces: a topology is a value, a network is a topology made
//! real, and a wire is a link whose frames pass through this process.

pub mod capture;
pub mod conntrack;
pub mod isolation;
pub mod kernel;
pub mod network;
pub mod tap;
mod tcp_flags;
pub mod topology;
pub mod wire;

pub use faultlab_base::{Error, Missing, Result};
