//! The state of a task: a process, a thread, or a kernel thread.

use std::fmt;

/// The maximum number of functions of a stack that are displayed.
const SHOWN: usize = 4;

/// Prefixes of functions that say nothing about what a task waits for: entry code, page
/// faults, netlink, workqueues, and every function that begins with `__`.
const UNINFORMATIVE: [&str; 22] = [
    "__handle_mm_fault",
    "handle_mm_fault",
    "do_user_addr_fault",
    "__do_page_fault",
    "do_page_fault",
    "exc_page_fault",
    "page_fault",
    "rep_movs_alternative",
    "_copy_from_user",
    "copy_user_generic",
    "netlink_",
    "sock_do_ioctl",
    "sock_ioctl",
    "sock_sendmsg",
    "do_syscall_64",
    "entry_SYSCALL",
    "asm_",
    "process_one_work",
    "worker_thread",
    "kthread",
    "ret_from_fork",
    "__",
];

/// A task and where it sleeps.
///
/// Displays as `attempt (D) in msleep <- netdev_run_todo <- rtnetlink_rcv_msg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The state letter of proc(5): `D` is an uninterruptible sleep.
    pub state: char,
    /// The kernel functions on its stack, innermost first. Without the privilege to read
    /// /proc/PID/stack, at most the innermost.
    pub stack: Vec<String>,
}

impl Task {
    /// Whether one of these functions is on its stack.
    #[must_use]
    pub fn is_in(&self, functions: &[&str]) -> bool {
        self.stack.iter().any(|function| functions.contains(&function.as_str()))
    }

    /// The informative functions on its stack, innermost first; `None` if there are none.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let informs = |function: &&str| !UNINFORMATIVE.iter().any(|prefix| function.starts_with(prefix));
        let shown: Vec<_> = self.stack.iter().map(String::as_str).filter(informs).take(SHOWN).collect();
        (!shown.is_empty()).then(|| shown.join(" <- "))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.state)?;
        self.place().map_or(Ok(()), |place| write!(f, " in {place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_displays_where_it_sleeps_and_not_how_it_came_there() {
        let stack = "handle_userfault __handle_mm_fault handle_mm_fault exc_page_fault asm_exc_page_fault \
                     _copy_from_user dev_ethtool dev_ioctl sock_do_ioctl __x64_sys_ioctl do_syscall_64";
        let stack = stack.split_whitespace().map(str::to_owned).collect();
        let task = Task { name: "holder".into(), state: 'S', stack };
        assert_eq!(task.to_string(), "holder (S) in handle_userfault <- dev_ethtool <- dev_ioctl");
        assert!(task.is_in(&["dev_ethtool"]) && !task.is_in(&["msleep"]));
        assert_eq!(Task { stack: vec![], ..task }.to_string(), "holder (S)");
    }
}
