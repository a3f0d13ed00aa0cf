//! The modules of a guest below /lib/modules, with modules.dep and modules.alias for
//! modprobe. The kernel runs modprobe when it needs a module, for example for a
//! protocol or an nf_tables expression.
//!
//! Reading: modules.dep(5); depmod(8), modules.alias; request_module() in
//! kernel/module/kmod.c.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::initramfs::Initramfs;
use crate::protocol::MODULE_LIST;
use faultlab_kernels::module::Module;

/// The directories of the kernel's source whose modules a command may need.
pub(super) const DIRECTORIES: [&str; 4] = ["net", "drivers/net", "crypto", "lib"];

impl Initramfs {
    /// Adds modules, which must be in load order, and lists those in `first`, which
    /// init loads at boot.
    pub(super) fn module_files(&mut self, release: &str, modules: &[Module], first: &BTreeSet<String>) {
        let directory = format!("/lib/modules/{release}");
        let path = |name: &str| format!("kernel/{name}.ko");
        let (mut dependencies, mut aliases, mut list) = (String::new(), String::new(), String::new());
        let places: BTreeMap<&str, usize> =
            modules.iter().enumerate().map(|(at, module)| (module.name.as_str(), at)).collect();
        for module in modules {
            self.file(&format!("{directory}/{}", path(&module.name)), 0o644, module.bytes.clone());
            let needs = needed_by(module, modules, &places);
            // modprobe loads the last one first.
            let needs: Vec<_> = needs.into_iter().rev().map(|at| path(&modules[at].name)).collect();
            let _ = writeln!(dependencies, "{}: {}", path(&module.name), needs.join(" "));
            for alias in &module.aliases {
                let _ = writeln!(aliases, "alias {alias} {}", module.name);
            }
            if first.contains(&module.name) {
                let _ = writeln!(list, "{directory}/{}", path(&module.name));
            }
        }
        self.file(&format!("{directory}/modules.dep"), 0o644, dependencies.into_bytes());
        self.file(&format!("{directory}/modules.alias"), 0o644, aliases.into_bytes());
        for empty in ["modules.symbols", "modules.builtin"] {
            self.file(&format!("{directory}/{empty}"), 0o644, vec![]);
        }
        self.file(MODULE_LIST, 0o644, list.into_bytes());
    }
}

/// The indices of all modules on which one depends, directly or indirectly.
fn needed_by(module: &Module, modules: &[Module], places: &BTreeMap<&str, usize>) -> BTreeSet<usize> {
    let own = places.get(module.name.as_str()).copied();
    let mut needed = BTreeSet::new();
    let mut left = vec![module];
    while let Some(next) = left.pop() {
        let generic = next.softdep_pre.iter().map(|name| format!("{name}_generic"));
        let names = next.depends.iter().chain(&next.softdep_pre).cloned().chain(generic);
        for at in names.filter_map(|name| places.get(name.as_str()).copied()) {
            if Some(at) != own && needed.insert(at) {
                left.push(&modules[at]);
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str], aliases: &[&str]) -> Module {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Module {
            name: name.to_owned(),
            depends: owned(depends),
            softdep_pre: vec![],
            aliases: owned(aliases),
            release: String::new(),
            bytes: vec![],
        }
    }

    #[test]
    fn what_a_module_depends_on_is_loaded_first() {
        let modules = [
            module("crc", &[], &[]),
            module("conntrack", &["crc"], &["ip_conntrack"]),
            module("nat", &["conntrack", "crc", "built_in"], &[]),
        ];
        let mut root = Initramfs::new();
        root.module_files("6.1.0", &modules, &BTreeSet::from(["conntrack".to_owned()]));
        let archive = root.build().unwrap();
        let text = String::from_utf8_lossy(&archive);
        for expected in [
            "kernel/crc.ko: \nkernel/conntrack.ko: kernel/crc.ko\n\
             kernel/nat.ko: kernel/conntrack.ko kernel/crc.ko\n",
            "alias ip_conntrack conntrack\n",
            "/lib/modules/6.1.0/kernel/conntrack.ko\n",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
    }
}
