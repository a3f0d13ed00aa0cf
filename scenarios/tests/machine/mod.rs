//! What a program could leave behind on a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The machine at a moment, as far as this process may see it.
pub struct Machine {
    /// Sessions of processes.
    sessions: BTreeSet<u32>,
    /// Network namespaces that a process is in or holds open, and in which
    /// session.
    namespaces: BTreeMap<String, BTreeSet<u32>>,
    /// Mounts; a namespace that has a name is one.
    mounts: BTreeSet<String>,
    /// Links of this network namespace.
    links: BTreeSet<String>,
    /// net.* of this network namespace.
    sysctls: BTreeMap<PathBuf, String>,
}

impl Machine {
    pub fn look() -> Self {
        let mut machine = Self {
            sessions: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            mounts: lines("/proc/self/mountinfo").collect(),
            links: lines("/proc/self/net/dev")
                .filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()))
                .collect(),
            sysctls: BTreeMap::new(),
        };
        read_all(Path::new("/proc/sys/net"), &mut machine.sysctls);
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            machine.look_at(&entry.path());
        }
        machine
    }

    fn look_at(&mut self, process: &Path) {
        // pid (comm) state ppid pgrp session ...
        let Ok(stat) = fs::read_to_string(process.join("stat")) else { return };
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let Some(session) = fields.skip(3).find_map(|f| f.parse().ok()) else { return };
        self.sessions.insert(session);
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|e| e.path());
        for link in open.chain([process.join("ns/net")]) {
            if let Ok(target) = fs::read_link(link)
                && let Some(target) = target.to_str().filter(|t| t.starts_with("net:["))
            {
                self.namespaces.entry(target.to_owned()).or_default().insert(session);
            }
        }
    }

    /// In what the machine differs now, a clause each.
    ///
    /// A namespace counts as left behind if a session holds it that is new, too:
    /// others may work on this machine.
    pub fn changes(&self) -> Vec<String> {
        let now = Self::look();
        let new = |session: &u32| !self.sessions.contains(session);
        let namespaces = now.namespaces.iter();
        let namespaces = namespaces.filter(|(n, by)| !self.namespaces.contains_key(*n) && by.iter().any(new));
        let mut changes: Vec<_> =
            namespaces.map(|(n, by)| format!("{n} is held by sessions {by:?}")).collect();
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

/// Counters that move by themselves.
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
