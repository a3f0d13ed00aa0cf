//! Shards: `run --shard I/N`, and the check of `merge` that no shard is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::files;

/// The argument of `--shard`: the I-th of N parts of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("I/N with I from 1 to N, as 2/4".to_owned()),
        }
    }

    /// Whether the n-th cell of the matrix, from 0 on, belongs to this shard.
    #[must_use]
    pub fn has(self, n: usize) -> bool {
        n % self.count == self.index - 1
    }
}

/// The description of a shard in a line of `run --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Its index, from 1 on.
    index: usize,
    /// The number of shards.
    of: usize,
    /// The number of outcomes of this shard.
    outcomes: usize,
    /// The matrix to which it belongs: a hash of everything that was requested. It tells
    /// several runs apart that are merged.
    matrix: String,
}

impl Part {
    /// The shard of a matrix with this number of cells. `asked` is what was requested.
    pub(super) fn of(shard: Shard, cells: usize, asked: &str) -> Self {
        Self {
            index: shard.index,
            of: shard.count,
            outcomes: (0..cells).filter(|n| shard.has(*n)).count(),
            matrix: files::hash(asked),
        }
    }
}

/// The shards found in the files.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The shards by matrix, number of shards, and index.
    all: BTreeMap<(String, usize, usize), Found>,
}

/// One shard that was found.
#[derive(Debug)]
struct Found {
    /// The index of the file that has it.
    file: usize,
    /// The number of its outcomes in that file, and the number that it should have.
    outcomes: usize,
    expected: usize,
    /// Whether another file has it too.
    doubled: bool,
}

impl Parts {
    /// Records the shard of a line, and whether the line has an outcome. Returns whether to
    /// use the line: not if an earlier file has the same shard.
    ///
    /// # Errors
    /// If the index is not from 1 to the number of shards: a sentence.
    pub(super) fn note(&mut self, part: Part, file: usize, has_outcome: bool) -> Result<bool, String> {
        let Part { index, of, outcomes, matrix } = part;
        if !(1..=of).contains(&index) {
            return Err(format!("{index}/{of} is no shard"));
        }
        let found = self.all.entry((matrix, of, index));
        let found = found.or_insert(Found { file, outcomes: 0, expected: outcomes, doubled: false });
        if found.file != file {
            found.doubled = true;
            return Ok(false);
        }
        found.outcomes += usize::from(has_outcome);
        Ok(true)
    }

    /// Checks that every shard was found once, with all its outcomes.
    ///
    /// # Errors
    /// A sentence that names the shards that are missing, incomplete, or in two files.
    pub(super) fn complete(&self) -> Result<(), String> {
        /// The maximum number of missing shards that are named for each matrix.
        const NAMED: usize = 20;
        let mut wrong = vec![];
        let mut left_out = 0;
        let matrices: BTreeSet<_> = self.all.keys().map(|(matrix, of, _)| (matrix.as_str(), *of)).collect();
        for (matrix, of) in matrices {
            let key = |index| (matrix.to_owned(), of, index);
            let here = self.all.range(key(0)..=key(of)).count();
            // The numbers in a file are untrusted and may be huge.
            let indices = (1..=of).take(here + NAMED + 1);
            let missing: Vec<_> = indices.filter(|index| !self.all.contains_key(&key(*index))).collect();
            wrong.extend(missing.iter().take(NAMED).map(|index| format!("shard {index}/{of} is missing")));
            left_out += (of - here) - missing.len().min(NAMED);
        }
        for ((_, of, index), Found { outcomes, expected, doubled, .. }) in &self.all {
            if *doubled {
                wrong.push(format!("shard {index}/{of} is there twice"));
            }
            if outcomes < expected {
                wrong.push(format!("shard {index}/{of} has {outcomes} of its {expected} outcomes"));
            }
        }
        if left_out > 0 {
            wrong.push(format!("{left_out} more are missing"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_matrix_without_a_gap() {
        let shards: Vec<_> = ["1/3", "2/3", "3/3"].map(|s| Shard::parse(s).unwrap()).into();
        for n in 0..20 {
            assert_eq!(shards.iter().filter(|s| s.has(n)).count(), 1);
        }
        for wrong in ["0/3", "4/3", "1", "/", "a/b", "1/0"] {
            assert!(Shard::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn part(matrix: &str, index: usize, of: usize, outcomes: usize) -> Part {
        Part { index, of, outcomes, matrix: matrix.to_owned() }
    }

    #[test]
    fn missing_and_doubled_shards_are_named() {
        let mut parts = Parts::default();
        assert_eq!(parts.complete(), Ok(()));
        parts.note(part("m", 1, 3, 2), 0, true).unwrap();
        parts.note(part("m", 1, 3, 2), 0, true).unwrap();
        assert_eq!(parts.complete().unwrap_err(), "shard 2/3 is missing; shard 3/3 is missing");
        assert!(!parts.note(part("m", 1, 3, 2), 1, true).unwrap());
        parts.note(part("m", 2, 3, 2), 1, true).unwrap();
        assert_eq!(
            parts.complete().unwrap_err(),
            "shard 3/3 is missing; shard 1/3 is there twice; shard 2/3 has 1 of its 2 outcomes"
        );
        // A shard may have no outcomes.
        assert!(parts.note(part("m", 3, 3, 0), 2, false).unwrap());
        parts.note(part("m", 2, 3, 2), 1, true).unwrap();
        assert_eq!(parts.complete().unwrap_err(), "shard 1/3 is there twice");

        let mut parts = Parts::default();
        for index in 1..=3 {
            assert!(parts.note(part("m", index, 3, 1), 0, true).unwrap());
        }
        assert_eq!(parts.complete(), Ok(()));
        // Another run, with the same number of shards.
        parts.note(part("n", 2, 3, 1), 3, true).unwrap();
        assert_eq!(parts.complete().unwrap_err(), "shard 1/3 is missing; shard 3/3 is missing");
        assert!(parts.note(part("n", 0, 3, 1), 3, true).is_err());
        assert!(parts.note(part("n", 4, 3, 1), 3, true).is_err());
    }

    #[test]
    fn a_shard_of_very_many_takes_no_time() {
        let mut parts = Parts::default();
        parts.note(part("m", usize::MAX, usize::MAX, 1), 0, true).unwrap();
        let said = parts.complete().unwrap_err();
        assert!(said.starts_with("shard 1/") && said.ends_with("more are missing"), "{said}");
    }
}
