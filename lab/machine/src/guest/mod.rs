//! This program as the init of a guest, the first process of a kernel with nothing
//! else on it. `vm` is the machine around it; the two share the `protocol` and
//! nothing else.
//!
//! - `init`: its main function; `housekeeping`: its work before the first job, and
//!   at the end; `priority`: CPU scheduling; `tools`: the tools of a shell.
//! - `line`: sends its reports out of the guest; `outputs`: and what a shell without
//!   a terminal prints.

pub mod housekeeping;
pub mod init;
pub mod line;
pub(crate) mod outputs;
mod priority;
mod tools;

pub use init::{asked, main};
