//! Kernel modules: which of them to load, and in which order.
//!
//! A directory of modules is read without modules.dep (Debian's packages
//! have none): each module says in its `.modinfo` section what it is called
//! and what it depends on.
//!
//! Reading: Documentation/kbuild/kbuild.rst (modules.builtin).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::module::{self, Module, module_name};
use super::package::is_module;
use super::sums::Sums;
use faultlab_base::error::{Error, Result};

/// A module that is wanted, under any of its names: the first that the
/// kernel has is taken. A module that was merged into another one in some
/// version has that one as its last name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted(pub &'static [&'static str]);

/// What the lab's networks, probes and evidence use, from kernel 4.4 on. A
/// kernel may have any of them built in, or lack it; [`LoadOrder`] says.
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
    Wanted(&["nft_counter", "nf_tables"]), // merged in 5.17
    Wanted(&["nfnetlink_log"]),
    Wanted(&["nf_log_ipv4", "nf_log_syslog"]), // merged in 5.13
    Wanted(&["inet_diag"]),
    Wanted(&["tcp_diag"]),
    Wanted(&["sch_tbf"]),
    Wanted(&["sch_netem"]),
];

/// What came of a list of wanted modules.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadOrder {
    /// To load, in this order.
    pub modules: Vec<Module>,
    /// Part of the kernel image.
    pub built_in: Vec<String>,
    /// Neither: built in perhaps, where the kernel came without
    /// modules.builtin, or not there at all.
    pub absent: Vec<Wanted>,
}

/// The modules of one kernel.
#[derive(Debug, Clone)]
pub struct Modules {
    dir: PathBuf,
    release: String,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    sums: Option<Sums>,
}

impl Modules {
    /// Those of a kernel that has none.
    #[must_use]
    pub fn none(release: &str) -> Self {
        Self {
            dir: PathBuf::new(),
            release: release.to_owned(),
            files: BTreeMap::new(),
            built_in: BTreeSet::new(),
            sums: None,
        }
    }

    /// Indexes the modules under `dir`, for a kernel of `release`. With
    /// `sums`, those of the directory's parent, each is checked when read.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn open(dir: &Path, release: &str, sums: Option<Sums>) -> Result<Self> {
        let mut modules = Self { dir: dir.to_owned(), sums, ..Self::none(release) };
        for path in files(dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match &*name {
                "modules.builtin" => {
                    let text = String::from_utf8_lossy(&modules.read_file(&path)?).into_owned();
                    modules.built_in.extend(text.lines().map(module_name));
                }
                // NAME.KEY=VALUE, each with a NUL
                "modules.builtin.modinfo" => {
                    let text = String::from_utf8_lossy(&modules.read_file(&path)?).into_owned();
                    let names = text.split('\0').filter_map(|info| info.split_once('.'));
                    modules.built_in.extend(names.map(|(name, _)| module_name(name)));
                }
                _ if is_module(&name) => {
                    modules.files.insert(module_name(&name), path);
                }
                _ => {}
            }
        }
        Ok(modules)
    }

    /// Whether the kernel says that this is part of its image.
    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        self.built_in.contains(&module_name(name))
    }

    /// Whether there is a file for this module.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&module_name(name))
    }

    /// Reads and unpacks a module; `None` where there is no file for it.
    ///
    /// # Errors
    /// One sentence: it cannot be read, was changed since it was added, is
    /// damaged, or was built for another kernel.
    pub fn read(&self, name: &str) -> Result<Option<Module>> {
        let Some(path) = self.files.get(&module_name(name)) else { return Ok(None) };
        let shown = self.dir.join(path);
        let wrong = |why: String| Error::Lab(format!("module {}: {why}", shown.display()));
        let bytes = module::unpack(self.read_file(path)?).map_err(wrong)?;
        let module = Module::parse(&module_name(name), bytes).map_err(wrong)?;
        if module.release.is_empty() || module.release == self.release {
            return Ok(Some(module));
        }
        Err(wrong(format!("it is for {}, the kernel is {}", module.release, self.release)))
    }

    /// Puts the wanted modules, and all that they depend on, in load order.
    ///
    /// # Errors
    /// As [`Modules::read`]; or a module depends on one that is not there.
    pub fn load_order(&self, wanted: &[Wanted]) -> Result<LoadOrder> {
        let mut order = LoadOrder::default();
        let mut seen = BTreeSet::new();
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

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(module) = self.read(name)? else { return Ok(()) };
        // Some name an algorithm: crc32c is an alias of crc32c_generic.
        let softdeps = module.softdep_pre.iter().flat_map(|name| [name.clone(), format!("{name}_generic")]);
        for name in softdeps.filter(|name| self.has(name)) {
            self.visit(&name, seen, order)?;
        }
        for needed in &module.depends {
            if !self.has(needed) && !self.is_built_in(needed) {
                return Err(Error::missing(
                    format!("module {needed}, on which {name} of {} depends,", self.release),
                    "add the kernel again with all of its modules",
                ));
            }
            self.visit(needed, seen, order)?;
        }
        order.push(module);
        Ok(())
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let full = self.dir.join(path);
        let bytes = fs::read(&full)
            .map_err(|e| Error::kernel("kernel modules", format!("read {}", full.display()), e))?;
        if let (Some(sums), Some(entry), Some(dir)) = (&self.sums, self.dir.parent(), self.dir.file_name()) {
            sums.check(entry, &Path::new(dir).join(path), &bytes)?;
        }
        Ok(bytes)
    }
}

/// The modules, and lists of what is built in, under `dir`, sorted, relative
/// to it. Symbolic links (`build`, `source`) are not followed.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    walk(dir).map_err(|e| Error::kernel("kernel modules", format!("read {}", dir.display()), e))
}

/// How many modules there are under `dir`; none if it is not there.
pub(super) fn count(dir: &Path) -> io::Result<usize> {
    if !dir.exists() {
        return Ok(0);
    }
    Ok(walk(dir)?.iter().filter(|path| is_module(&path.to_string_lossy())).count())
}

fn walk(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for file in fs::read_dir(&next)? {
            let file = file?;
            let (kind, path) = (file.file_type()?, file.path());
            let name = file.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && (is_module(&name) || name.starts_with("modules.builtin")) {
                found.push(path.strip_prefix(dir).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::module::tests::ko;
    use super::*;

    fn directory(files: &[(&str, &[&str])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, info) in files {
            fs::write(dir.path().join(name), ko(info)).unwrap();
        }
        dir
    }

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
        let modules = Modules::open(dir.path(), "6.1.0", None).unwrap();
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
    fn modules_that_need_each_other_end() {
        let dir = directory(&[("a.ko", &["depends=b"]), ("b.ko", &["depends=a"])]);
        let modules = Modules::open(dir.path(), "6.1.0", None).unwrap();
        assert_eq!(names(&modules.load_order(&[Wanted(&["a"])]).unwrap()), ["b", "a"]);
    }

    #[test]
    fn what_cannot_be_loaded_says_why() {
        let dir = directory(&[("a.ko", &["depends=b"]), ("old.ko", &["vermagic=5.10.0 SMP"])]);
        fs::write(dir.path().join("text.ko"), "text").unwrap();
        fs::write(dir.path().join("cut.ko"), &ko(&[])[..80]).unwrap();
        fs::write(dir.path().join("cut.ko.xz"), b"\xfd7zXZ\0\0\x04").unwrap();
        fs::write(dir.path().join("zipped.ko.gz"), b"\x1f\x8b\x08\0").unwrap();
        let modules = Modules::open(dir.path(), "6.1.0", None).unwrap();
        for (name, sentence) in [
            ("a", "module b, on which a of 6.1.0 depends, is missing"),
            ("old", "it is for 5.10.0, the kernel is 6.1.0"),
            ("text", "neither an ELF file nor one packed"),
            ("cut", "it is damaged"),
            ("zipped", "gzip"),
        ] {
            let mut order = Vec::new();
            let error = modules.visit(name, &mut BTreeSet::new(), &mut order).unwrap_err().to_string();
            assert!(error.contains(sentence), "{name}: {error}");
        }
    }
}
