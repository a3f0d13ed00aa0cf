//! What a task is doing: a process, a thread, or one of the kernel's own.
//!
//! Reading list: proc(5): /proc/PID/stat, /proc/PID/stack, /proc/PID/wchan.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// How many functions of a stack are told.
const TOLD: usize = 4;

/// Functions that are on the way to where the kernel sleeps, whatever it does there.
const WAY: [&str; 22] = [
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
    /// Its name, 15 bytes at most.
    pub name: String,
    /// The letter of proc(5): `D` is an uninterruptible sleep.
    pub state: char,
    /// The functions of the kernel that it sleeps in, innermost first; only the
    /// innermost, or none, without the privilege to see them.
    pub stack: Vec<String>,
}

impl Task {
    /// The task that a directory of /proc is of; none where it has ended.
    #[must_use]
    pub fn at(place: &Path) -> Option<Self> {
        let (name, state, _) = parse_stat(&fs::read_to_string(place.join("stat")).ok()?)?;
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        let mut stack = stack(place);
        if stack.is_empty() {
            let function = fs::read_to_string(place.join("wchan")).unwrap_or_default();
            stack.extend(Some(function).filter(|function| !matches!(function.as_str(), "" | "0")));
        }
        Some(Self { name, state, stack })
    }

    /// The directory of /proc of the calling thread.
    #[must_use]
    pub fn place_of_this() -> Option<PathBuf> {
        Some(Path::new("/proc").join(fs::read_link("/proc/thread-self").ok()?))
    }

    /// The directory of /proc of a process; none where /proc here is of another
    /// pid namespace.
    #[must_use]
    pub fn place_of(process: u32) -> Option<PathBuf> {
        let own = fs::read_link("/proc/self").ok()?;
        (own.to_str() == Some(&std::process::id().to_string()))
            .then(|| Path::new("/proc").join(process.to_string()))
    }

    /// The kernel's own tasks that are in an uninterruptible sleep, as far as
    /// /proc here shows them.
    #[must_use]
    pub fn of_kernel() -> Vec<Self> {
        const KTHREADD: u32 = 2;
        let is_kernel = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
        let Some(all) = is_kernel.then(|| fs::read_dir("/proc").ok()).flatten() else { return vec![] };
        let waits = |place: &Path| {
            let stat = fs::read_to_string(place.join("stat")).unwrap_or_default();
            parse_stat(&stat).is_some_and(|(_, state, parent)| state == 'D' && parent == KTHREADD)
        };
        let places = all.flatten().map(|entry| entry.path()).filter(|place| waits(place));
        places.filter_map(|place| Self::at(&place)).collect()
    }

    /// Whether one of these functions is on its stack.
    #[must_use]
    pub fn is_in(&self, functions: &[&str]) -> bool {
        self.stack.iter().any(|function| functions.contains(&function.as_str()))
    }

    /// The telling functions of its stack; none where nothing is known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let on_the_way = |function: &str| WAY.iter().any(|way| function.starts_with(way));
        let telling = self.stack.iter().map(String::as_str).filter(|function| !on_the_way(function));
        let told: Vec<_> = telling.take(TOLD).collect();
        (!told.is_empty()).then(|| told.join(" <- "))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.state)?;
        self.place().map_or(Ok(()), |place| write!(f, " in {place}"))
    }
}

/// The functions of the kernel that the task of a directory of /proc sleeps
/// in, innermost first; none without the privilege to see them.
#[must_use]
pub fn stack(place: &Path) -> Vec<String> {
    let text = fs::read_to_string(place.join("stack")).unwrap_or_default();
    text.lines().filter_map(function).take(16).map(str::to_owned).collect()
}

/// The function of a line of /proc/PID/stack: `[<0>] msleep+0x2d/0x40`.
fn function(line: &str) -> Option<&str> {
    let symbol = line.split_once("] ")?.1.trim();
    Some(symbol.split_once('+').map_or(symbol, |(name, _)| name)).filter(|name| !name.starts_with("0x"))
}

/// Name, state and parent of /proc/PID/stat. A name may have anything in it.
fn parse_stat(text: &str) -> Option<(String, char, u32)> {
    let (head, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?.chars().next()?;
    Some((head.split_once('(')?.1.to_owned(), state, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stack_is_read() {
        assert_eq!(function("[<0>] msleep+0x2d/0x40"), Some("msleep"));
        assert_eq!(function("[<ffffffff810d2f1d>] msleep+0x2d/0x40"), Some("msleep"));
        assert_eq!(function("[<ffffffffffffffff>] 0xffffffffffffffff"), None);
    }

    #[test]
    fn a_name_may_look_like_the_rest() {
        let text = "41 (kworker/u2:1 (x) ) D 2 0 0 0";
        assert_eq!(parse_stat(text), Some(("kworker/u2:1 (x) ".to_owned(), 'D', 2)));
    }

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

    #[test]
    fn this_task_is_found() {
        let task = Task::at(Path::new("/proc/thread-self")).expect("a task");
        assert_eq!(task.state, 'R');
        assert_eq!(Task::at(Path::new("/proc/none")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(line in ".{0,40}") {
            let _ = (function(&line), parse_stat(&line));
        }
    }
}
