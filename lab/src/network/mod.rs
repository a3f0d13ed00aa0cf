//! A topology made real.

pub mod firewall;
pub mod namespace;

pub use namespace::Namespace;
