//! Hosts, routers, links and rules as plain values.

pub mod rule;
