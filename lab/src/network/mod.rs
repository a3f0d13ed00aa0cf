//! A topology made real.

pub mod firewall;
pub mod namespace;
pub mod offload;

pub use namespace::Namespace;
