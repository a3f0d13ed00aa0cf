#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! Each module uses only those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`capture`] | frames and their interfaces, as values |
//! | [`topology`] | hosts, routers, links and rules, as values |
//! | [`namespace`], [`isolation`] | the only modules here that change namespaces |
//! | [`kernel`] | the running kernel: its release and its features |
//! | [`netlink`] | requests to the kernel: rtnetlink and nfnetlink |
//! | [`packet`] | packet sockets with a receive ring |
//! | [`conntrack`] | the entries of connection tracking, events, statistics |
//! | [`wire`] | a link through this process, under a policy |
//! | [`network`] | a topology made real |
//! | [`tap`] | captures of a network |

pub mod capture;
pub mod conntrack;
pub mod isolation;
pub mod kernel;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod packet;
pub mod tap;
mod tcp_flags;
pub mod topology;
pub mod wire;

pub use faultlab_base::{Error, Missing, Result};
