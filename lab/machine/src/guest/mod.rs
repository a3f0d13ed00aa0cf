//! This program as the init of a guest, the first process of a kernel that
//! nothing else runs on. The machine around it is `vm`; the two share the
//! `protocol` and nothing else.
//!
//! - `init`: its life; `housekeeping`: what it does before the first job, and at
//!   the end; `priority`: whose turn it is; `tools`: what a shell has in hand.
//! - `line`: how its reports leave the guest.

pub mod housekeeping;
pub mod init;
pub mod line;
mod priority;
mod tools;

pub use init::{asked, main};
