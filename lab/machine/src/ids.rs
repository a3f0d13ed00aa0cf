//! The ids outside that the users and groups of a worker's user namespace map to.
//!
//! Reading list: user_namespaces(7), "User and group ID mappings"; systemd's
//! UIDS-GIDS.md, the table of ranges that other programs use.

use std::fs;

/// The first id of the ranges. Distributions and container managers usually assign
/// no ids from here up to 0x7ffe0000, where systemd's foreign ids begin.
const FIRST: u32 = 0x7000_0000;

/// The number of ids of a range: all ids of 16 bits, as container managers assign.
const COUNT: u32 = 0x1_0000;

/// The number of ranges. Two workers share one if their process ids are equal modulo
/// this number.
const RANGES: u32 = 0x0ffd;

/// A mapping of ids, from 0 on, of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The id outside that 0 maps to.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

impl Range {
    /// A single id, which is 0 inside.
    pub(super) const fn single(outside: u32) -> Self {
        Self { outside, count: 1 }
    }

    /// The line for uid_map or gid_map.
    pub(super) fn line(self) -> String {
        format!("0 {} {}", self.outside, self.count)
    }
}

/// The users and groups of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub users: Range,
    pub groups: Range,
}

impl Ids {
    /// Ids for a worker that root starts, chosen by its process id. Whether another
    /// program uses them is not checked. `None` if root has only its own id.
    pub(super) fn unused(process: u32) -> Option<Self> {
        let of = |file: &str| unused(&fs::read_to_string(file).ok()?, process);
        Some(Self { users: of("/proc/self/uid_map")?, groups: of("/proc/self/gid_map")? })
    }
}

/// The range for this process id in a user namespace with this map. A container may
/// not map that range: then it is the highest id that the container maps.
fn unused(map: &str, process: u32) -> Option<Range> {
    let extents: Vec<(u32, u32)> = map.lines().filter_map(extent).collect();
    let range = Range { outside: FIRST + process % RANGES * COUNT, count: COUNT };
    let has = |&(first, last): &(u32, u32)| first <= range.outside && range.outside + (COUNT - 1) <= last;
    if extents.iter().any(has) {
        return Some(range);
    }
    let last = extents.iter().map(|(_, last)| *last).max()?;
    (last > 0).then_some(Range::single(last))
}

/// The first and the last id of a line of uid_map. 4294967295 is not an id: it
/// stands for "no change" in chown(2) and setresuid(2).
fn extent(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().map(str::parse::<u32>);
    let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
    Some((first, first.checked_add(count.checked_sub(1)?)?.min(u32::MAX - 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_machine_has_a_range_for_every_worker() {
        let map = "         0          0 4294967295\n";
        assert_eq!(unused(map, 0), Some(Range { outside: FIRST, count: COUNT }));
        assert_eq!(unused(map, 1), Some(Range { outside: FIRST + COUNT, count: COUNT }));
        assert_eq!(unused(map, 0).map(Range::line).as_deref(), Some("0 1879048192 65536"));
        // systemd's UIDS-GIDS.md: foreign ids begin at 0x7ffe0000.
        const { assert!(FIRST + RANGES * COUNT <= 0x7ffe_0000) };
    }

    #[test]
    fn a_container_has_its_last_id() {
        assert_eq!(unused("0 100000 65536\n", 7), Some(Range::single(65535)));
        assert_eq!(unused("0 1000 1\n1 100000 65536\n", 7), Some(Range::single(65536)));
        assert_eq!(unused("0 1000 1\n", 7), None);
        assert_eq!(unused("", 7), None);
    }

    proptest! {
        #[test]
        fn no_map_panics(map in "([0-9]{0,11} ){0,4}\n?", process in any::<u32>()) {
            let _ = unused(&map, process);
        }
    }
}
