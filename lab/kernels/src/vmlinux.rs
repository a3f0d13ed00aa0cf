//! The kernel that a bzImage carries, unpacked.
//!
//! A guest that starts from the unpacked kernel, by its PVH entry, need not
//! unpack it under emulation, which takes as long as half of its boot.
//!
//! Reading: Documentation/arch/x86/boot.rst, "payload_offset";
//! xen/include/public/elfnote.h, PHYS32_ENTRY;
//! lz4's doc/lz4_Block_format.md and doc/lz4_Frame_format.md, "Legacy frame".

use super::limits::{self, VMLINUX_MAX, read_at_most};

/// xen/include/public/elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;
/// arch/x86/Kconfig: CONFIG_PVH, which separates the entry from Xen, is of
/// 5.0; before, the note may be there and serve Xen only.
const PVH_SINCE: u32 = 5;
/// elf.h: PT_NOTE.
const PT_NOTE: u32 = 4;

/// The vmlinux in `bzimage`; none where it is packed in a way that is not
/// known here, is larger than a guest's memory, or was configured without
/// CONFIG_PVH: the bzImage itself boots then, only later.
#[must_use]
pub fn unpack(bzimage: &[u8]) -> Option<Vec<u8>> {
    if major_version(bzimage)? < PVH_SINCE {
        return None;
    }
    let payload = payload(bzimage)?;
    let vmlinux = match payload.get(..4)? {
        [0x28, 0xb5, 0x2f, 0xfd] => zstd(payload, VMLINUX_MAX)?,
        [0x02, 0x21, 0x4c, 0x18] => lz4_legacy(&payload[4..], VMLINUX_MAX)?,
        _ => return None,
    };
    has_pvh_entry(&vmlinux).then_some(vmlinux)
}

/// boot.rst: "kernel_version ... contains a pointer to a NUL-terminated
/// human-readable kernel version number string, less 0x200".
fn major_version(bzimage: &[u8]) -> Option<u32> {
    let at = usize::from(u16::from_le_bytes([*bzimage.get(0x20e)?, *bzimage.get(0x20f)?])) + 0x200;
    let digits = bzimage.get(at..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// boot.rst: "payload_offset ... from the beginning of the protected-mode code".
fn payload(bzimage: &[u8]) -> Option<&[u8]> {
    if bzimage.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // boot.rst: 0 stands for 4 setup sectors; the boot sector comes on top.
    let sectors = match bzimage.get(0x1f1)? {
        0 => 4,
        n => usize::from(*n),
    };
    let start = (sectors + 1) * 512 + le32(bzimage, 0x248)? as usize;
    bzimage.get(start..start.checked_add(le32(bzimage, 0x24c)? as usize)?)
}

fn zstd(packed: &[u8], max: u64) -> Option<Vec<u8>> {
    // Behind the frame the kernel's build puts the unpacked length.
    read_at_most(limits::zstd(packed).ok()?.single_frame(), max).ok()
}

/// A legacy frame: blocks, each after its packed length. The kernel's build
/// puts the unpacked length of the whole behind them.
fn lz4_legacy(mut packed: &[u8], max: u64) -> Option<Vec<u8>> {
    let max = usize::try_from(max).ok()?;
    let mut unpacked = Vec::new();
    while packed.len() > 4 {
        let (length, rest) = packed.split_at(4);
        let length = le32(length, 0)? as usize;
        lz4_block(rest.get(..length)?, &mut unpacked, max)?;
        packed = &rest[length..];
    }
    (le32(packed, 0)? as usize == unpacked.len()).then_some(unpacked)
}

/// A block: sequences of literals and of a copy of what was unpacked before.
/// What is unpacked in all, this block and those before, is at most `max` bytes.
fn lz4_block(packed: &[u8], unpacked: &mut Vec<u8>, max: usize) -> Option<()> {
    /// "minmatch is 4": a copy is at least this long.
    const MATCH_MIN: usize = 4;
    let start = unpacked.len();
    let mut bytes = packed.iter();
    loop {
        let token = *bytes.next()?;
        let literals = lz4_length(token >> 4, &mut bytes)?;
        let (copied, rest) = bytes.as_slice().split_at_checked(literals)?;
        if unpacked.len() + copied.len() > max {
            return None;
        }
        unpacked.extend_from_slice(copied);
        bytes = rest.iter();
        if bytes.as_slice().is_empty() {
            // "The last sequence is incomplete, and stops right after the literals."
            return Some(());
        }
        let offset = usize::from(u16::from_le_bytes([*bytes.next()?, *bytes.next()?]));
        let length = lz4_length(token & 15, &mut bytes)? + MATCH_MIN;
        let from = unpacked.len().checked_sub(offset).filter(|from| *from >= start && offset > 0)?;
        if unpacked.len() + length > max {
            return None;
        }
        if length <= offset {
            unpacked.extend_from_within(from..from + length);
        } else {
            // The copy overlaps its own result: a pattern that repeats.
            for at in from..from + length {
                unpacked.push(unpacked[at]);
            }
        }
    }
}

/// "15 ... means that more bytes follow, each added, until one is not 255."
fn lz4_length(nibble: u8, bytes: &mut std::slice::Iter<'_, u8>) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = *bytes.next()?;
            length += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Some(length)
}

/// Whether this ELF file names a 32-bit entry point for PVH.
fn has_pvh_entry(elf: &[u8]) -> bool {
    notes(elf).unwrap_or_default().contains(&PHYS32_ENTRY)
}

/// The types of the notes of a 64-bit ELF file that are Xen's.
fn notes(elf: &[u8]) -> Option<Vec<u32>> {
    if elf.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let mut types = Vec::new();
    let headers = usize::try_from(le64(elf, 0x20)?).ok()?;
    let count = usize::from(u16::from_le_bytes([*elf.get(0x38)?, *elf.get(0x39)?]));
    for header in (0..count).map(|n| headers.saturating_add(n * 56)) {
        if le32(elf, header)? != PT_NOTE {
            continue;
        }
        let offset = usize::try_from(le64(elf, header.checked_add(0x08)?)?).ok()?;
        let size = usize::try_from(le64(elf, header.checked_add(0x20)?)?).ok()?;
        let mut rest = elf.get(offset..offset.checked_add(size)?)?;
        // A note: name size, value size, type, name, value, both padded to 4.
        while rest.len() >= 12 {
            let (name, value) = (le32(rest, 0)? as usize, le32(rest, 4)? as usize);
            if rest.get(12..12 + name)? == b"Xen\0" {
                types.push(le32(rest, 8)?);
            }
            let length = 12 + name.next_multiple_of(4) + value.next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    Some(types)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_repeats_what_it_copies() {
        let mut out = Vec::new();
        // 3 literals, then 4 + 5 bytes from 3 back, then 1 literal and the end.
        lz4_block(&[0x35, b'a', b'b', b'c', 3, 0, 0x10, b'!'], &mut out, 99).unwrap();
        assert_eq!(out, b"abcabcabcabc!");
    }

    #[test]
    fn a_legacy_frame_ends_with_its_length() {
        let mut frame = vec![2, 0, 0, 0, 0x10, b'x', 2, 0, 0, 0, 0x10, b'y'];
        frame.extend(2u32.to_le_bytes());
        assert_eq!(lz4_legacy(&frame, 99).unwrap(), b"xy");
        frame[12] = 3;
        assert_eq!(lz4_legacy(&frame, 99), None);
    }

    #[test]
    fn a_copy_from_before_the_block_is_refused() {
        assert_eq!(lz4_block(&[0x10, b'a', 2, 0, 0x10, b'!'], &mut Vec::new(), 99), None);
    }

    #[test]
    fn what_unpacks_to_more_than_a_guest_has_is_none() {
        let packed = zstd::stream::encode_all(&[7; 5000][..], 1).unwrap();
        assert_eq!(zstd(&packed, 5000).unwrap(), [7; 5000]);
        // Not the first 4999 bytes of it.
        assert_eq!(zstd(&packed, 4999), None);
        // 3 literals, 9 bytes of a copy, 1 literal; then literals only.
        for block in
            [&[0x35, b'a', b'b', b'c', 3, 0, 0x10, b'!'][..], &[0xd0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]]
        {
            assert!(lz4_block(block, &mut Vec::new(), 13).is_some());
            assert!(lz4_block(block, &mut Vec::new(), 12).is_none());
            assert!(lz4_block(block, &mut vec![0], 13).is_none());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, elf: Vec<u8>) {
            let _ = lz4_legacy(&bytes, 99);
            let _ = unpack(&bytes);
            let mut file = b"\x7fELF\x02".to_vec();
            file.extend(elf);
            let _ = has_pvh_entry(&file);
        }
    }
}
