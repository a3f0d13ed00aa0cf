//! Which modules to load into a guest, and in which order.

use std::collections::BTreeSet;
use std::vec;

use super::limits::{LOADED_MODULES_MAX, Size};
use super::module::{Module, module_name};
use super::modules::Modules;
use faultlab_base::error::{Error, Result};

/// A module by its names in different kernels: the first name that the kernel has is
/// used. If the module was merged into another one, that is the last name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted(pub &'static [&'static str]);

/// The modules that the lab's networks, probes and evidence use, from kernel 4.4 on. A
/// kernel may have some built in or lack them: [`LoadOrder`].
pub const WANTED: &[Wanted] = &[
    Wanted(&["af_packet"]),
    Wanted(&["veth"]),
    Wanted(&["bridge"]),
    Wanted(&["tun"]),
    Wanted(&["nf_tables"]),
    Wanted(&["nf_tables_ipv4", "nf_tables"]),       // merged in 4.17
    Wanted(&["nf_tables_ipv6", "nf_tables"]),       // merged in 4.17
    Wanted(&["nf_tables_inet", "nf_tables"]),       // merged in 4.17
    Wanted(&["nf_conntrack_ipv4", "nf_conntrack"]), // merged in 4.19
    Wanted(&["nf_conntrack_ipv6", "nf_conntrack"]), // merged in 4.19
    Wanted(&["nf_conntrack_netlink"]),
    Wanted(&["nf_nat"]),
    Wanted(&["nft_chain_nat_ipv4", "nft_chain_nat"]), // merged in 5.1
    Wanted(&["nft_chain_nat_ipv6", "nft_chain_nat"]), // merged in 5.1
    Wanted(&["nft_nat"]),
    Wanted(&["nft_masq_ipv4", "nft_masq"]), // merged in 5.1
    Wanted(&["nft_masq_ipv6", "nft_masq"]), // merged in 5.1
    Wanted(&["nft_ct"]),
    Wanted(&["nft_numgen"]),
    Wanted(&["nft_reject_ipv4"]),
    Wanted(&["nft_reject_ipv6"]),
    Wanted(&["nft_counter", "nf_tables"]), // merged in 5.17
    Wanted(&["nfnetlink_log"]),
    Wanted(&["nf_log_ipv4", "nf_log_syslog"]), // merged in 5.13
    Wanted(&["inet_diag"]),
    Wanted(&["tcp_diag"]),
    Wanted(&["sch_tbf"]),
    Wanted(&["sch_netem"]),
];

/// Where the wanted modules were found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadOrder {
    /// The modules to load, in this order.
    pub modules: Vec<Module>,
    /// The names of modules that are built into the kernel.
    pub built_in: Vec<String>,
    /// Modules that were not found: missing, or built into a kernel without
    /// modules.builtin.
    pub absent: Vec<Wanted>,
}

/// A module whose dependencies are being visited.
#[derive(Debug)]
struct Open {
    module: Module,
    needs: vec::IntoIter<Need>,
}

#[derive(Debug)]
enum Need {
    /// Loaded if available.
    Soft(String),
    Hard(String),
}

/// The modules read so far.
#[derive(Debug)]
struct Seen {
    names: BTreeSet<String>,
    /// The bytes that may still be loaded into a guest.
    room: u64,
}

impl Modules {
    /// Puts the wanted modules, and all their dependencies, in load order.
    ///
    /// # Errors
    /// As [`Modules::read`]; also if a dependency is missing, or the modules
    /// together are too large for a guest.
    pub fn load_order(&self, wanted: &[Wanted]) -> Result<LoadOrder> {
        let mut order = LoadOrder::default();
        let mut seen = Seen { names: BTreeSet::new(), room: LOADED_MODULES_MAX };
        for wanted in wanted {
            let known = |name: &&&str| self.has(name) || self.is_built_in(name);
            match wanted.0.iter().find(known) {
                None => order.absent.push(*wanted),
                Some(name) if self.has(name) => {
                    self.visit(&module_name(name), &mut seen, &mut order.modules)?;
                }
                Some(name) if order.built_in.iter().any(|there| there == name) => {}
                Some(name) => order.built_in.push((*name).to_owned()),
            }
        }
        Ok(order)
    }

    /// All modules of these directories of the kernel's source, such as `net`, and all
    /// their dependencies, in load order. A module with a missing dependency is left
    /// out: packages may have only a part of a kernel's modules.
    ///
    /// # Errors
    /// As [`Modules::read`]; also if the modules together are too large for a guest.
    pub fn of_directories(&self, directories: &[&str]) -> Result<Vec<Module>> {
        let mut modules = vec![];
        let mut seen = Seen { names: BTreeSet::new(), room: LOADED_MODULES_MAX };
        for name in self.names_in(directories) {
            match self.visit(name, &mut seen, &mut modules) {
                Err(Error::Missing(_)) => {}
                done => done?,
            }
        }
        Ok(modules)
    }

    /// Appends `name` to `order`, after its dependencies. It is not recursive, so a
    /// long chain takes no stack. In a cycle, the dependency that closes it is ignored.
    fn visit(&self, name: &str, seen: &mut Seen, order: &mut Vec<Module>) -> Result<()> {
        let mut open: Vec<Open> = self.enter(name, seen)?.into_iter().collect();
        while let Some(last) = open.last_mut() {
            let name = match last.needs.next() {
                None => {
                    order.extend(open.pop().map(|open| open.module));
                    continue;
                }
                Some(Need::Soft(name)) if !self.has(&name) => continue,
                Some(Need::Hard(name)) if !self.has(&name) && !self.is_built_in(&name) => {
                    return Err(Error::missing(
                        format!("module {name}, on which {} of {} depends,", last.module.name, self.release),
                        "add the kernel again with all of its modules",
                    ));
                }
                Some(Need::Soft(name) | Need::Hard(name)) => name,
            };
            open.extend(self.enter(&name, seen)?);
        }
        Ok(())
    }

    /// Reads a module and its dependencies; `None` if it was read before or has no
    /// file.
    fn enter(&self, name: &str, seen: &mut Seen) -> Result<Option<Open>> {
        if !seen.names.insert(name.to_owned()) {
            return Ok(None);
        }
        let Some(module) = self.read(name)? else { return Ok(None) };
        seen.room = seen.room.checked_sub(module.bytes.len() as u64).ok_or_else(|| {
            let max = Size(LOADED_MODULES_MAX);
            Error::Lab(format!(
                "the modules of {} to load, up to {name}, are larger than {max}",
                self.release
            ))
        })?;
        // A soft dependency may be the alias of an algorithm: crc32c stands for
        // crc32c_generic.
        let soft = module.softdep_pre.iter().flat_map(|name| [name.clone(), format!("{name}_generic")]);
        let hard = module.depends.iter().cloned().map(Need::Hard);
        let needs: Vec<_> = soft.map(Need::Soft).chain(hard).collect();
        Ok(Some(Open { module, needs: needs.into_iter() }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::module::tests::ko;
    use super::super::modules::tests::{directory, open};
    use super::*;

    fn names(order: &LoadOrder) -> Vec<&str> {
        order.modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn what_is_depended_on_comes_first_and_once() {
        let dir = directory(&[
            ("nf-nat.ko", &["name=nf_nat", "depends=nf-conntrack", "vermagic=6.1.0 SMP"]),
            ("nf_conntrack.ko", &["depends=libcrc32c", "vermagic=6.1.0 SMP"]),
            ("libcrc32c.ko", &["depends=", "softdep=pre: crc32c other post: late", "vermagic=6.1.0 SMP"]),
            ("crc32c_generic.ko", &["depends="]),
            ("late.ko", &["depends="]),
        ]);
        fs::write(dir.path().join("modules.builtin"), "kernel/net/packet/af_packet.ko\n").unwrap();
        let modules = open(dir.path());
        let wanted = [
            Wanted(&["old_nat", "nf_nat"]),
            Wanted(&["nf_conntrack"]),
            Wanted(&["af-packet"]),
            Wanted(&["tun"]),
        ];
        let order = modules.load_order(&wanted).unwrap();
        assert_eq!(names(&order), ["crc32c_generic", "libcrc32c", "nf_conntrack", "nf_nat"]);
        assert_eq!(order.built_in, ["af-packet"]);
        assert_eq!(order.absent, [Wanted(&["tun"])]);
    }

    #[test]
    fn the_modules_of_a_directory_come_with_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        for (path, info) in [
            ("kernel/net/sched/sch_tbf.ko", ["depends="]),
            ("kernel/net/netfilter/nf_nat.ko", ["depends=libcrc32c"]),
            ("kernel/net/netfilter/cut.ko", ["depends=nowhere"]),
            ("kernel/lib/libcrc32c.ko", ["depends="]),
            ("kernel/network/other.ko", ["depends="]),
            ("kernel/drivers/net/veth.ko", ["depends="]),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, ko(&info)).unwrap();
        }
        let modules = open(dir.path()).of_directories(&["net"]).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["libcrc32c", "nf_nat", "sch_tbf"]);
    }

    #[test]
    fn modules_that_need_each_other_end() {
        let dir = directory(&[("a.ko", &["depends=b"]), ("b.ko", &["depends=a"])]);
        let modules = open(dir.path());
        assert_eq!(names(&modules.load_order(&[Wanted(&["a"])]).unwrap()), ["b", "a"]);
    }

    #[test]
    fn what_cannot_be_loaded_says_why() {
        let dir = directory(&[("a.ko", &["depends=b"]), ("old.ko", &["vermagic=5.10.0 SMP"])]);
        fs::write(dir.path().join("text.ko"), "text").unwrap();
        fs::write(dir.path().join("cut.ko"), &ko(&[])[..80]).unwrap();
        fs::write(dir.path().join("cut.ko.xz"), b"\xfd7zXZ\0\0\x04").unwrap();
        fs::write(dir.path().join("zipped.ko.gz"), b"\x1f\x8b\x08\0").unwrap();
        let modules = open(dir.path());
        for (name, sentence) in [
            ("a", "module b, on which a of 6.1.0 depends, is missing"),
            ("old", "it is for 5.10.0, the kernel is 6.1.0"),
            ("text", "neither an ELF file nor one packed"),
            ("cut", "it is damaged"),
            ("zipped", "gzip"),
        ] {
            let mut seen = Seen { names: BTreeSet::new(), room: 1 << 20 };
            let error = modules.visit(name, &mut seen, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{name}: {error}");
        }
    }

    #[test]
    fn a_long_chain_of_needs_takes_no_stack() {
        // Below the limit of modules, but too deep for recursion on a thread's
        // stack.
        const LENGTH: usize = 19_000;
        let dir = tempfile::tempdir().unwrap();
        for number in 0..LENGTH {
            let needs = format!("depends=m{}", (number + 1) % LENGTH);
            fs::write(dir.path().join(format!("m{number}.ko")), ko(&[&needs])).unwrap();
        }
        let modules = open(dir.path());
        let visit = || modules.load_order(&[Wanted(&["m0"])]).unwrap();
        // A tenth of a test thread's stack.
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let order = std::thread::scope(|scope| small.spawn_scoped(scope, visit).unwrap().join().unwrap());
        let (first, last) = (&order.modules[0].name, &order.modules[LENGTH - 1].name);
        assert_eq!((order.modules.len(), first.as_str(), last.as_str()), (LENGTH, "m18999", "m0"));
    }

    #[test]
    fn modules_of_all_have_room_in_a_guest() {
        let dir = directory(&[("a.ko", &["depends=b,c"]), ("b.ko", &[]), ("c.ko", &[])]);
        let modules = open(dir.path());
        let size = ko(&["depends=b,c"]).len() as u64 + ko(&[]).len() as u64;
        let mut seen = Seen { names: BTreeSet::new(), room: size };
        let error = modules.visit("a", &mut seen, &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "the modules of 6.1.0 to load, up to c, are larger than 256 MiB");
    }
}
