//! A kernel module and its metadata.
//!
//! Reading: include/linux/module.h (MODULE_INFO, MODULE_SOFTDEP),
//! scripts/mod/modpost.c (add_depends, `name=`).

use std::io::{self, ErrorKind};

use elf::ElfBytes;
use elf::endian::AnyEndian;

use super::beneath::{is_module_name, is_release, quoted};
use super::limits::{self, DECODER_MAX_KIB, MODINFO_MAX, NEEDS_MAX, Size, read_at_most};

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `-` replaced by `_`.
    pub name: String,
    /// The modules that must be loaded first.
    pub depends: Vec<String>,
    /// The modules to load first if they are available (MODULE_SOFTDEP).
    pub softdep_pre: Vec<String>,
    /// The patterns of the names by which the kernel requests it (MODULE_ALIAS).
    pub aliases: Vec<String>,
    /// The release it was built for; empty if it has none.
    pub release: String,
    /// The ELF file, as finit_module(2) takes it.
    pub bytes: Vec<u8>,
}

impl Module {
    /// Reads the metadata of the ELF file `bytes`; `name` is the fallback for
    /// modules without a name (before 4.13).
    pub(super) fn parse(name: &str, bytes: Vec<u8>) -> std::result::Result<Self, String> {
        let info = modinfo(&bytes).map_err(|why| format!("it is damaged: {why}"))?;
        let values = |key: &str| -> Vec<String> {
            let value =
                |entry: &&str| entry.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
            info.iter().filter_map(|entry| value(&entry.as_str())).collect()
        };
        let softdep_pre = |text: &String| {
            let mut pre = false;
            let mut names = Vec::new();
            for word in text.split_whitespace() {
                match word {
                    "pre:" => pre = true,
                    "post:" => pre = false,
                    word if pre => names.push(module_name(word)),
                    _ => {}
                }
            }
            names
        };
        let module = Self {
            name: values("name").first().map_or_else(|| name.to_owned(), |name| module_name(name)),
            depends: values("depends")
                .iter()
                .flat_map(|list| list.split(','))
                .filter(|name| !name.is_empty())
                .map(module_name)
                .collect(),
            // Other names are aliases, which are not resolved.
            softdep_pre: values("softdep")
                .iter()
                .flat_map(softdep_pre)
                .filter(|name| is_module_name(name))
                .collect(),
            aliases: values("alias").into_iter().filter(|alias| is_alias(alias)).collect(),
            release: values("vermagic")
                .first()
                .and_then(|magic| magic.split_whitespace().next())
                .unwrap_or_default()
                .to_owned(),
            bytes,
        };
        if let Some(name) =
            [&module.name].into_iter().chain(&module.depends).find(|name| !is_module_name(name))
        {
            return Err(format!("it names {}, which no module is called", quoted(name.as_bytes())));
        }
        if module.depends.len() + module.softdep_pre.len() > NEEDS_MAX {
            return Err(format!("it names more than {NEEDS_MAX} modules that it needs"));
        }
        if !module.release.is_empty() && !is_release(&module.release) {
            let release = quoted(module.release.as_bytes());
            return Err(format!("it is for {release}, which no kernel is called"));
        }
        Ok(module)
    }
}

/// Whether this can be a pattern in modules.alias: one word of printable ASCII.
fn is_alias(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The `KEY=VALUE` strings of an ELF file's `.modinfo`.
fn modinfo(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(|e| e.to_string())?;
    let section = file.section_header_by_name(".modinfo").map_err(|e| e.to_string())?;
    let section = section.ok_or("it has no .modinfo")?;
    let (data, _) = file.section_data(&section).map_err(|e| e.to_string())?;
    if data.len() > MODINFO_MAX {
        return Err(format!("its .modinfo is larger than {}", Size(MODINFO_MAX as u64)));
    }
    Ok(data
        .split(|b| *b == 0)
        .filter(|s| !s.is_empty())
        .map(|s| String::from_utf8_lossy(s).into_owned())
        .collect())
}

/// A module's name from a path, a file name or a name, with `-` replaced by `_`.
pub(super) fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Decompresses a module, in the format that its first bytes identify.
///
/// # Errors
/// A clause: it is damaged, in an unknown format, or unpacks to more than `max`
/// bytes.
pub(super) fn unpack(bytes: Vec<u8>, max: u64) -> std::result::Result<Vec<u8>, String> {
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::FileTooLarge => format!("it unpacks to more than {}", Size(max)),
        ErrorKind::OutOfMemory => {
            format!("to unpack it takes more than {} of memory", Size(u64::from(DECODER_MAX_KIB) << 10))
        }
        _ => format!("it is damaged: {e}"),
    };
    match bytes.get(..4) {
        Some(b"\x7fELF") => Ok(bytes),
        Some(b"\xfd7zX") => read_at_most(limits::xz(bytes.as_slice()), max).map_err(failed),
        Some(b"\x28\xb5\x2f\xfd") => {
            limits::zstd(bytes.as_slice()).and_then(|unpacked| read_at_most(unpacked, max)).map_err(failed)
        }
        Some([0x1f, 0x8b, ..]) => {
            Err("it is packed with gzip; unpack it (xz and zstd are understood)".into())
        }
        _ => Err("it is neither an ELF file nor one packed with xz or zstd".into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with this .modinfo and nothing else.
    pub(crate) fn ko(info: &[&str]) -> Vec<u8> {
        let info: Vec<u8> = info.iter().flat_map(|entry| entry.bytes().chain([0])).collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let header = |name: u32, kind: u32, at: usize, size: usize| {
            let mut header = Vec::new();
            header.extend(name.to_le_bytes());
            header.extend(kind.to_le_bytes());
            for word in [0, 0, at as u64, size as u64] {
                header.extend(word.to_le_bytes());
            }
            header.extend([0; 24]);
            header
        };
        let table = 64 + info.len() + names.len();
        // e_ident, ET_REL, EM_X86_64, version, entry, phoff, shoff
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
        file.extend([0; 16]);
        file.extend((table as u64).to_le_bytes());
        // flags, ehsize, phentsize, phnum, shentsize, shnum, shstrndx
        file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        file.extend(&info);
        file.extend(names);
        file.extend(header(0, 0, 0, 0));
        file.extend(header(1, 1, 64, info.len()));
        file.extend(header(10, 3, 64 + info.len(), names.len()));
        file
    }

    #[test]
    fn what_a_module_unpacks_to_is_bounded() {
        let bomb = vec![0; 1 << 20];
        let zstd = zstd::stream::encode_all(&bomb[..], 1).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&bomb).unwrap();
        for packed in [zstd, xz.finish().unwrap()] {
            assert!(packed.len() < 1 << 12);
            assert_eq!(unpack(packed.clone(), 1 << 20).unwrap(), bomb);
            assert_eq!(unpack(packed, 1 << 19).unwrap_err(), "it unpacks to more than 512 KiB");
        }
    }

    #[test]
    fn names_are_those_of_modules_and_kernels() {
        let parse = |info: &[&str]| Module::parse("veth", ko(info)).map(|module| module.depends);
        assert_eq!(
            parse(&["depends=nf-conntrack,8021q", "vermagic=6.1.0+ SMP"]).unwrap(),
            ["nf_conntrack", "8021q"]
        );
        for (info, sentence) in [
            (&["name=a\nb"][..], r#"it names "a\nb", which no module is called"#),
            (&["name="], "it names \"\", which"),
            (&["depends=a,\x1b[2J"], r#"it names "\u{1b}[2J", which"#),
            (&["depends=\u{202e}"], r#"it names "\u{202e}", which"#),
            (&["vermagic=\x1b[2J SMP"], r#"it is for "\u{1b}[2J", which no kernel is called"#),
        ] {
            let error = parse(info).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
        }
        let softdep = Module::parse("veth", ko(&["softdep=pre: crc32c sha(256)"])).unwrap().softdep_pre;
        assert_eq!(softdep, ["crc32c"]);
        let aliases = ["alias=net-pf-24", "alias=a b", "alias=\x1b[2J", "alias=ip6?t_*"];
        let aliases = Module::parse("veth", ko(&aliases)).unwrap().aliases;
        assert_eq!(aliases, ["net-pf-24", "ip6?t_*"]);
        let needs = format!("depends={}", "a,".repeat(NEEDS_MAX + 1));
        assert_eq!(parse(&[&needs]).unwrap_err(), "it names more than 1024 modules that it needs");
        // Each value is a separate string: 24 times its size.
        let filler = "x\0".repeat(MODINFO_MAX / 2);
        assert_eq!(parse(&[&filler]).unwrap_err(), "it is damaged: its .modinfo is larger than 1 MiB");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..300, byte: u8, length in 0usize..400) {
            let mut bytes = ko(&["name=veth", "depends=a,b", "vermagic=6.1.0 SMP", "softdep=pre: x"]);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(length);
            let _ = unpack(bytes.clone(), 1 << 20);
            let _ = Module::parse("veth", bytes);
        }
    }
}
