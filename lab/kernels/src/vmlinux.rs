//! Extracts the vmlinux from a bzImage.
//!
//! QEMU can start a vmlinux at its PVH entry point. Then the guest does not decompress
//! its kernel under emulation, which takes a large part of its boot time.
//!
//! Reading: Documentation/arch/x86/boot.rst, "payload_offset";
//! xen/include/public/elfnote.h, PHYS32_ENTRY;
//! lz4's doc/lz4_Frame_format.md, "Legacy frame".

use elf::ElfBytes;
use elf::abi::PT_NOTE;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::Note;
use lz4_flex::frame::FrameDecoder;

use super::limits::{self, VMLINUX_MAX, read_at_most};

/// xen/include/public/elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u64 = 18;
/// arch/x86/Kconfig: CONFIG_PVH, new in 5.0, made the entry point independent of Xen.
/// Older kernels may have the note, but their entry point works only under Xen.
const PVH_SINCE: u32 = 5;

/// The vmlinux in `bzimage`; `None` if its compression is not supported, it is larger
/// than a guest's memory, or the kernel has no PVH entry point. Then the caller boots
/// the bzImage itself, which takes longer.
#[must_use]
pub fn unpack(bzimage: &[u8]) -> Option<Vec<u8>> {
    if major_version(bzimage)? < PVH_SINCE {
        return None;
    }
    let payload = payload(bzimage)?;
    let vmlinux = match payload.get(..4)? {
        [0x28, 0xb5, 0x2f, 0xfd] => zstd(payload, VMLINUX_MAX)?,
        [0x02, 0x21, 0x4c, 0x18] => lz4_legacy(payload, VMLINUX_MAX)?,
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
    // boot.rst: 0 stands for 4 setup sectors; the boot sector is extra.
    let sectors = match bzimage.get(0x1f1)? {
        0 => 4,
        n => usize::from(*n),
    };
    let start = (sectors + 1) * 512 + le32(bzimage, 0x248)? as usize;
    bzimage.get(start..start.checked_add(le32(bzimage, 0x24c)? as usize)?)
}

fn zstd(packed: &[u8], max: u64) -> Option<Vec<u8>> {
    // The kernel's build appends the unpacked length to the frame.
    read_at_most(limits::zstd(packed).ok()?.single_frame(), max).ok()
}

/// Decompresses an lz4 legacy frame, which has no end mark. The kernel's build appends
/// the unpacked length.
fn lz4_legacy(packed: &[u8], max: u64) -> Option<Vec<u8>> {
    let (frame, length) = packed.split_last_chunk::<4>()?;
    let unpacked = read_at_most(FrameDecoder::new(frame), max).ok()?;
    (u32::from_le_bytes(*length) as usize == unpacked.len()).then_some(unpacked)
}

/// Whether this 64-bit ELF file has a PVH entry point.
fn has_pvh_entry(vmlinux: &[u8]) -> bool {
    let Ok(elf) = ElfBytes::<LittleEndian>::minimal_parse(vmlinux) else { return false };
    let notes = elf.segments().into_iter().flatten().filter(|segment| segment.p_type == PT_NOTE);
    let mut notes = notes.filter_map(|segment| elf.segment_data_as_notes(&segment).ok()).flatten();
    elf.ehdr.class == Class::ELF64
        && notes.any(|note| {
            matches!(note, Note::Unknown(note) if note.name == b"Xen\0" && note.n_type == PHYS32_ENTRY)
        })
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A legacy frame of these blocks, and their unpacked length.
    fn legacy(blocks: &[&[u8]], length: u32) -> Vec<u8> {
        let mut frame = vec![0x02, 0x21, 0x4c, 0x18];
        for block in blocks {
            frame.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            frame.extend(*block);
        }
        frame.extend(length.to_le_bytes());
        frame
    }

    /// 3 literals, then 4 + 5 bytes from 3 back, then 1 literal and the end.
    const REPEATS: &[u8] = &[0x35, b'a', b'b', b'c', 3, 0, 0x10, b'!'];

    #[test]
    fn a_legacy_frame_ends_with_its_length() {
        assert_eq!(lz4_legacy(&legacy(&[REPEATS], 13), 99).unwrap(), b"abcabcabcabc!");
        assert_eq!(lz4_legacy(&legacy(&[&[0x10, b'x'], &[0x10, b'y']], 2), 99).unwrap(), b"xy");
        assert_eq!(lz4_legacy(&legacy(&[&[0x10, b'x'], &[0x10, b'y']], 3), 99), None);
        let whole = legacy(&[REPEATS], 13);
        assert!((0..whole.len()).all(|end| lz4_legacy(&whole[..end], 99).is_none()));
    }

    #[test]
    fn a_copy_from_before_the_block_is_refused() {
        let copies = [0x10, b'a', 2, 0, 0x10, b'!'];
        assert_eq!(lz4_legacy(&legacy(&[REPEATS, &copies], 19), 99), None);
    }

    #[test]
    fn what_unpacks_to_more_than_a_guest_has_is_none() {
        let packed = zstd::stream::encode_all(&[7; 5000][..], 1).unwrap();
        assert_eq!(zstd(&packed, 5000).unwrap(), [7; 5000]);
        // Not the first 4999 bytes of it.
        assert_eq!(zstd(&packed, 4999), None);
        assert!(lz4_legacy(&legacy(&[REPEATS], 13), 13).is_some());
        assert!(lz4_legacy(&legacy(&[REPEATS], 13), 12).is_none());
    }

    /// A 64-bit ELF file with one segment of notes, one of them Xen's.
    fn elf_with_note(kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[0x20] = 64; // e_phoff
        file[0x36] = 56; // e_phentsize
        file[0x38] = 1; // e_phnum
        let note = [4u32, 4, kind].map(u32::to_le_bytes).concat();
        let notes = [&note[..], b"GNU\0", &[0; 4], &note, b"Xen\0", &[0; 4]].concat();
        file[64] = 4; // PT_NOTE
        file[64 + 0x08] = 120; // p_offset
        file[64 + 0x20] = u8::try_from(notes.len()).unwrap(); // p_filesz
        file[64 + 0x30] = 4; // p_align
        file.extend(notes);
        file
    }

    #[test]
    fn the_note_of_an_entry_is_found() {
        assert!(has_pvh_entry(&elf_with_note(18)));
        assert!(!has_pvh_entry(&elf_with_note(17)));
        let mut narrow = elf_with_note(18);
        narrow[4] = 1;
        assert!(!has_pvh_entry(&narrow));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, at in 0usize..180, byte: u8) {
            let _ = unpack(&bytes);
            let mut file = elf_with_note(18);
            let at = at.min(file.len() - 1);
            file[at] = byte;
            let _ = has_pvh_entry(&file);
        }
    }

    proptest! {
        // A decoder zeroes 8 MiB per block.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_block_is_read_without_panic(bytes: Vec<u8>) {
            let _ = lz4_legacy(&legacy(&[&bytes], 13), 99);
        }
    }
}
