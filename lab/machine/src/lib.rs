//! The machines on which scenarios run.
//!
//! - `job`: the jobs, the reports, and the code that performs a job in a `worker`
//!   or in a `guest`.
//! - `here`: starts a `worker` on the running kernel, in new namespaces
//!   (`confinement`, with `ids`, `mounts`, `tmpfs` and `syscalls`); reads its
//!   standard error (`complaints`); `stops`: detects SIGSTOP; `check`: tests what
//!   this machine supports.
//! - `vm`: a kernel under QEMU; `guest`: this program as its init, which is given
//!   `orders`; `protocol`:
//!   the interface between them.
//! - `exec`: runs a command in a worker's namespaces or in a guest.
//! - `shell`: a shell in the network of an arm that was `played`, with `names` for
//!   `ip netns`, `commands` on its PATH, and the `belongings` of a confined shell;
//!   `waiting`: shows progress until it starts, with `background` for its writes to
//!   the terminal; `recheck`: plays the probes again;
//!   `exercise`: answers a trainee's commands.

mod background;
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
mod orders;
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
