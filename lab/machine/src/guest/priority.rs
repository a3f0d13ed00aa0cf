//! CPU scheduling in a guest, which has one processor.
//!
//! Reading: sched(7), "The nice value" and "Resetting scheduling policy for
//! child processes"; kernel/softirq.c: `invoke_softirq`, `wakeup_softirqd`.

use std::fs;

use libc::{c_int, id_t};
use nix::errno::Errno;

use super::only_as_init;
use faultlab_base::error::{Error, Result};

const NICEST: c_int = -20;
const LEAST_NICE: c_int = 19;
/// The calling thread.
const THIS: id_t = 0;

/// Sets this thread, which carries the frames of wires, to nice -20. Kernel workers
/// and other threads would otherwise run for some milliseconds before it. Its children
/// have nice 0 (SCHED_RESET_ON_FORK).
///
/// ksoftirqd gets the same nice value: while it has work to do, all softirqs are left
/// to it, and none interrupts a system call.
///
/// # Errors
/// If the kernel refuses.
pub fn go_first() -> Result<()> {
    only_as_init()?;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let task = entry.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(task) = task.filter(|_| name.starts_with("ksoftirqd/")) {
            set(task, NICEST)?;
        }
    }
    let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one value, which outlives the call.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    Errno::result(result).map_err(|e| Error::kernel("init", "sched_setscheduler", e))?;
    set(THIS, NICEST)
}

/// Sets this thread, which sends the output of a command, to nice 19. The command, which
/// was started before, runs first: it is not preempted while it prints, until a pipe
/// is full. Children that are started later inherit the value.
///
/// # Errors
/// If the kernel refuses.
pub fn go_last() -> Result<()> {
    only_as_init()?;
    set(THIS, LEAST_NICE)
}

fn set(task: id_t, nice: c_int) -> Result<()> {
    // SAFETY: three numbers.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, task, nice) };
    Errno::result(result).map(drop).map_err(|e| Error::kernel("init", "setpriority", e))
}
