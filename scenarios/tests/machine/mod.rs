//! What a program could leave behind on a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The state of the machine at one moment, as far as this process sees it.
pub struct Machine {
    /// The environment variable (`NAME=value`) of the processes to look for.
    mark: String,
    /// Mounts, which include named namespaces.
    mounts: BTreeSet<String>,
    /// Links of this network namespace.
    links: BTreeSet<String>,
    /// net.* of this network namespace.
    sysctls: BTreeMap<PathBuf, String>,
}

impl Machine {
    /// Records the state before processes are started with `mark`
    /// (`NAME=value`) in their environment, which distinguishes them from
    /// others.
    pub fn look(mark: &str) -> Self {
        let mut sysctls = BTreeMap::new();
        read_all(Path::new("/proc/sys/net"), &mut sysctls);
        Self {
            mark: mark.to_owned(),
            mounts: lines("/proc/self/mountinfo").collect(),
            links: lines("/proc/self/net/dev")
                .filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()))
                .collect(),
            sysctls,
        }
    }

    /// The processes with the mark, in any session. Namespaces that only they
    /// hold end with the last of them.
    fn marked(&self) -> Vec<String> {
        let is_marked = |process: &Path| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|word| word == self.mark.as_bytes())
        };
        let all = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        all.filter(|process| is_marked(process)).map(|process| process.display().to_string()).collect()
    }

    /// The differences between the recorded and the current state, one clause
    /// each.
    pub fn changes(&self) -> Vec<String> {
        let now = Self::look(&self.mark);
        let mut changes: Vec<_> =
            self.marked().into_iter().map(|process| format!("{process} lives")).collect();
        changes.extend(now.mounts.difference(&self.mounts).map(|mount| format!("mounted: {mount}")));
        changes.extend(now.links.difference(&self.links).map(|link| format!("link {link} is new")));
        for (key, value) in &self.sysctls {
            let now = now.sysctls.get(key);
            if now != Some(value) {
                changes.push(format!("{} was {value:?} and is {now:?}", key.display()));
            }
        }
        changes
    }
}

fn lines(file: &str) -> impl Iterator<Item = String> {
    fs::read_to_string(file)
        .expect("/proc can be read")
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// Counters that change by themselves.
const MOVING: [&str; 1] = ["nf_conntrack_count"];

fn read_all(folder: &Path, into: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, into);
        } else if !MOVING.iter().any(|m| path.ends_with(m))
            && let Ok(value) = fs::read_to_string(&path)
        {
            into.insert(path, value);
        }
    }
}
