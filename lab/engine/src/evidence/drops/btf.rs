//! BTF, the kernel's description of its own types, as far as a tracing program needs
//! it: the offsets of members, and the names of enumerators.
//!
//! - Documentation/bpf/btf.rst; include/uapi/linux/btf.h

use faultlab_base::error::{Error, Result};

/// The BTF of the running kernel, if it was built with CONFIG_DEBUG_INFO_BTF.
pub const OF_THE_KERNEL: &str = "/sys/kernel/btf/vmlinux";

// BTF_MAGIC, and enum of BTF_KIND_*.
const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The maximum nesting of types; deeper nesting means a cycle.
const DEPTH: u32 = 16;

/// The types of a kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// The offset of each type; the entry for number 0, which is void, is unused.
    types: Vec<usize>,
    strings: usize,
}

/// `struct btf_type` without what follows it.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// The number of members, enumerators or parameters that follow.
    members: usize,
    /// The members' offsets share their words with bit-field sizes.
    has_bit_fields: bool,
    /// The type that this one refers to.
    is: u32,
    /// The offset of the data that follows.
    body: usize,
}

impl Btf {
    /// Parses BTF.
    ///
    /// # Errors
    /// If `bytes` are not BTF in this machine's byte order.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let wrong = || Error::Lab("the kernel's description of its types (BTF) is not understood".into());
        let mut btf = Self { bytes, types: vec![0], strings: 0 };
        Self::walk(&mut btf).ok_or_else(wrong)?;
        Ok(btf)
    }

    fn walk(&mut self) -> Option<()> {
        // struct btf_header
        if u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let word = |at: usize| Some(self.word(at)? as usize);
        let header = word(4)?;
        let (mut at, end) = (header.checked_add(word(8)?)?, word(12)?);
        let end = at.checked_add(end)?;
        self.strings = header.checked_add(word(16)?)?;
        while at < end {
            self.types.push(at);
            let one = self.at(at)?;
            at = one.body
                + match one.kind {
                    INT | VAR | DECL_TAG => 4,
                    ARRAY => 12,
                    STRUCT | UNION | DATASEC | ENUM64 => 12 * one.members,
                    ENUM | FUNC_PROTO => 8 * one.members,
                    _ => 0,
                };
        }
        Some(())
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn at(&self, at: usize) -> Option<Type> {
        let info = self.word(at + 4)?;
        Some(Type {
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            members: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 == 1,
            is: self.word(at + 8)?,
            body: at + 12,
        })
    }

    fn of(&self, number: u32) -> Option<Type> {
        self.types.get(number as usize).filter(|&&at| at > 0).and_then(|&at| self.at(at))
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let name = self.bytes.get(self.strings.checked_add(offset as usize)?..)?;
        std::str::from_utf8(name.split(|&b| b == 0).next()?).ok()
    }

    /// The first type of this kind and name.
    fn find(&self, kind: u32, name: &str) -> Option<Type> {
        let types = self.types[1..].iter().filter_map(|&at| self.at(at));
        types.into_iter().find(|one| one.kind == kind && self.name(one.name) == Some(name))
    }

    /// The offset of a member in a structure, in bytes, like C's offsetof:
    /// `offset("net", "ns.inum")`. Members of unnamed structures and unions belong to
    /// the enclosing structure.
    #[must_use]
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut inside = self.find(STRUCT, structure)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (at, number) = self.member(inside, name, DEPTH)?;
            offset = u32::checked_add(offset, at)?;
            inside = self.resolved(number).unwrap_or(inside);
        }
        Some(offset)
    }

    /// A member's offset in bytes, and its type number.
    fn member(&self, inside: Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth == 0 || !matches!(inside.kind, STRUCT | UNION) {
            return None;
        }
        // struct btf_member: name, type, offset in bits
        (0..inside.members).find_map(|n| {
            let at = inside.body + 12 * n;
            let (its_name, number, bits) =
                (self.name(self.word(at)?)?, self.word(at + 4)?, self.word(at + 8)?);
            let offset = if inside.has_bit_fields { bits & 0x00ff_ffff } else { bits } / 8;
            if its_name == name {
                return Some((offset, number));
            }
            let unnamed = its_name.is_empty().then(|| self.resolved(number)).flatten()?;
            self.member(unnamed, name, depth - 1)
                .and_then(|(within, number)| Some((offset.checked_add(within)?, number)))
        })
    }

    /// A type without typedefs and qualifiers.
    fn resolved(&self, number: u32) -> Option<Type> {
        let mut one = self.of(number)?;
        for _ in 0..DEPTH {
            if !matches!(one.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(one);
            }
            one = self.of(one.is)?;
        }
        None
    }

    /// The values of an enumeration and their names; empty if there is no such
    /// enumeration.
    #[must_use]
    pub fn enumerators(&self, name: &str) -> Vec<(u32, &str)> {
        let Some(one) = self.find(ENUM, name) else { return vec![] };
        let enumerator = |n: usize| {
            let at = one.body + 8 * n;
            Some((self.word(at + 4)?, self.name(self.word(at)?)?))
        };
        (0..one.members).filter_map(enumerator).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds BTF from types, given as words, and from names. A name's offset is the
    /// sum of the lengths of the names before it.
    fn made(types: &[u32], names: &str) -> Vec<u8> {
        let length = |n: usize| u32::try_from(n).unwrap();
        let bytes = length(4 * types.len());
        let mut made = vec![];
        made.extend(MAGIC.to_ne_bytes());
        made.extend([1, 0]);
        for word in [24, 0, bytes, bytes, length(names.len())].iter().chain(types) {
            made.extend(word.to_ne_bytes());
        }
        made.extend(names.as_bytes());
        made
    }

    /// `struct net { int *a; union { const ns_t ns; }; }`, `struct ns { int; int inum; }`
    /// and `enum why { NO, YES = 7 }`.
    fn example() -> Vec<u8> {
        let names = "\0int\0ns\0inum\0ns_t\0net\0a\0why\0NO\0YES\0";
        let at = |name: &str| u32::try_from(names.find(&format!("\0{name}\0")).unwrap() + 1).unwrap();
        let types: [Vec<u32>; 7] = [
            // 1: int
            vec![at("int"), INT << 24, 4, 32],
            // 2: struct ns
            vec![at("ns"), STRUCT << 24 | 2, 8, 0, 1, 0, at("inum"), 1, 32],
            // 3: ns_t, 4: const ns_t
            vec![at("ns_t"), TYPEDEF << 24, 2],
            vec![0, CONST << 24, 3],
            // 5: the union, 6: struct net, whose offsets include bit-field sizes
            vec![0, UNION << 24 | 1, 8, at("ns"), 4, 0],
            vec![at("net"), 1 << 31 | STRUCT << 24 | 2, 16, at("a"), 1, 0, 0, 5, 64],
            vec![at("why"), ENUM << 24 | 2, 4, at("NO"), 0, at("YES"), 7],
        ];
        made(&types.concat(), names)
    }

    #[test]
    fn members_are_found_where_c_has_them() {
        let btf = Btf::parse(example()).unwrap();
        assert_eq!(btf.offset("ns", "inum"), Some(4));
        assert_eq!(btf.offset("net", "ns"), Some(8));
        assert_eq!(btf.offset("net", "ns.inum"), Some(12));
        for (structure, path) in [("net", "b"), ("net", "ns.b"), ("net", "a.inum"), ("int", "a"), ("x", "y")]
        {
            assert_eq!(btf.offset(structure, path), None, "{structure}.{path}");
        }
    }

    #[test]
    fn enumerators_have_their_values() {
        let btf = Btf::parse(example()).unwrap();
        assert_eq!(btf.enumerators("why"), [(0, "NO"), (7, "YES")]);
        assert_eq!(btf.enumerators("net"), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(change in 0_usize..200, to: u8, end in 0_usize..400) {
            let mut bytes = example();
            let change = change % bytes.len();
            bytes[change] = to;
            bytes.truncate(end);
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.offset("net", "ns.inum");
                let _ = btf.enumerators("why");
            }
        }
    }
}
