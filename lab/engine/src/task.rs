//! What a task is doing: a process, a thread, or a kernel thread.
//!
//! Reading list: proc(5): /proc/PID/stat, /proc/PID/stack, /proc/PID/wchan.

use std::fs;
use std::path::{Path, PathBuf};

use faultlab_model::recording::Task;

/// Reads a task from its /proc directory; `None` for a zombie, or if there is no such
/// task.
#[must_use]
pub fn at(place: &Path) -> Option<Task> {
    let (name, state, _) = parse_stat(&fs::read_to_string(place.join("stat")).ok()?)?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let mut stack = stack(place);
    if stack.is_empty() {
        let function = fs::read_to_string(place.join("wchan")).unwrap_or_default();
        stack.extend(Some(function).filter(|function| !matches!(function.as_str(), "" | "0")));
    }
    Some(Task { name, state, stack })
}

/// The /proc directory of the calling thread.
#[must_use]
pub fn place_of_this() -> Option<PathBuf> {
    Some(Path::new("/proc").join(fs::read_link("/proc/thread-self").ok()?))
}

/// The /proc directory of a process; `None` if /proc here belongs to another pid
/// namespace.
#[must_use]
pub fn place_of(process: u32) -> Option<PathBuf> {
    let own = fs::read_link("/proc/self").ok()?;
    (own.to_str() == Some(&std::process::id().to_string()))
        .then(|| Path::new("/proc").join(process.to_string()))
}

/// The kernel threads in an uninterruptible sleep; empty if the pid 2 of this /proc is
/// not kthreadd.
#[must_use]
pub fn of_kernel() -> Vec<Task> {
    const KTHREADD: u32 = 2;
    let is_kernel = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    let Some(all) = is_kernel.then(|| fs::read_dir("/proc").ok()).flatten() else { return vec![] };
    let waits = |place: &Path| {
        let stat = fs::read_to_string(place.join("stat")).unwrap_or_default();
        parse_stat(&stat).is_some_and(|(_, state, parent)| state == 'D' && parent == KTHREADD)
    };
    let places = all.flatten().map(|entry| entry.path()).filter(|place| waits(place));
    places.filter_map(|place| at(&place)).collect()
}

/// The kernel functions that the task of a /proc directory sleeps in, innermost
/// first; empty without the privilege to read stacks.
#[must_use]
pub fn stack(place: &Path) -> Vec<String> {
    let text = fs::read_to_string(place.join("stack")).unwrap_or_default();
    text.lines().filter_map(function).take(16).map(str::to_owned).collect()
}

/// The function in a line of /proc/PID/stack: `[<0>] msleep+0x2d/0x40`.
fn function(line: &str) -> Option<&str> {
    let symbol = line.split_once("] ")?.1.trim();
    Some(symbol.split_once('+').map_or(symbol, |(name, _)| name)).filter(|name| !name.starts_with("0x"))
}

/// Parses name, state and parent from /proc/PID/stat. A name may contain any character.
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
    fn this_task_is_found() {
        let task = at(Path::new("/proc/thread-self")).expect("a task");
        assert_eq!(task.state, 'R');
        assert_eq!(at(Path::new("/proc/none")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(line in ".{0,40}") {
            let _ = (function(&line), parse_stat(&line));
        }
    }
}
