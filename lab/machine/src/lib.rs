//! The machines on which scenarios run.
//!
//! - `job`: the jobs, the reports, and how a job is done; the same in a `worker`
//!   and in a `guest`.
//! - `here`: the running kernel, on which a `worker` does the job in namespaces
//!   of its own (`confinement`, with `ids`, `mounts`, `tmpfs` and `syscalls`);
//!   `check`: what this machine can do.
//! - `vm`: a kernel under QEMU; `guest`: this program as its init; `protocol`:
//!   shared by both.
//! - `exec`: any command, in a worker's namespaces or in a guest.
//! - `shell`: a shell beside an arm that was `played`, with `names` for hosts and
//!   its own `belongings` and `commands`; `waiting`: what takes
//!   time before it; `recheck`: plays the probes again;
//!   `exercise`: answers a trainee's commands.

mod belongings;
pub mod check;
pub mod commands;
mod complaints;
pub mod confinement;
pub mod exec;
pub mod exercise;
pub mod guest;
pub mod here;
mod ids;
pub mod job;
mod mounts;
mod names;
mod played;
pub mod protocol;
mod recheck;
pub mod shell;
mod stops;
mod syscalls;
mod tmpfs;
pub mod vm;
mod waiting;
pub mod worker;
