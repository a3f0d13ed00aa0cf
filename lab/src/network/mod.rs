//! A topology made real.

pub mod firewall;
pub mod namespace;
pub(crate) mod netlink;
pub mod qdisc;
pub mod sysctl;
pub(crate) mod nfnetlink;
pub mod offload;

pub use namespace::Namespace;
