//! Observations: values taken before and after, which display in the kernel's
//! spelling.

pub mod counters;
pub mod drops;
pub mod invalid;
pub mod kernel_log;
pub mod kernel_reports;
pub mod route_cache;
pub mod shared_log;
pub mod sockets;
mod tracker;
pub mod waits;
pub mod witness;
