//! Limits on the size of packages, images, modules and the store.
//!
//! Packages and images are untrusted, and a few kilobytes can unpack to any size.
//! Every read into memory and every write to the store is bounded by one of these
//! limits; the error names the file and the limit.

use std::fmt;
use std::io::{self, Read};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The memory of a guest that runs scenarios. Anything larger cannot be loaded there.
const GUEST_MEMORY: u64 = 256 * MIB;

/// A bzImage. Those of distributions are 5 to 20 MiB in size.
pub(super) const IMAGE_MAX: u64 = GUEST_MEMORY;
/// The vmlinux in a bzImage. Those of distributions are 30 to 80 MiB in size.
pub(super) const VMLINUX_MAX: u64 = GUEST_MEMORY;
/// A module's file in the store. amdgpu.ko with its debugging information, the
/// largest, has about 400 MiB.
pub(super) const MODULE_MAX: u64 = 512 * MIB;
/// A module that is loaded into a guest; the limit holds for the compressed and for the
/// uncompressed file. nf_tables.ko with its debugging information has about 20 MiB.
pub(super) const LOADED_MODULE_MAX: u64 = GUEST_MEMORY / 2;
/// All modules that are loaded into a guest.
pub(super) const LOADED_MODULES_MAX: u64 = GUEST_MEMORY;
/// A module's .modinfo. One with thousands of aliases has 100 KiB.
pub(super) const MODINFO_MAX: usize = 1 << 20;
/// The dependencies of one module: i915.ko has the most, 30.
pub(super) const NEEDS_MAX: usize = 1024;
/// A text file of a kernel's build: config is 300 KiB, modules.builtin.modinfo
/// less.
pub(super) const LIST_MAX: u64 = 16 * MIB;
/// The modules and lists of one kernel. Debian's general kernel has 4,500, an
/// allmodconfig build 10,000.
pub(super) const MODULES_MAX: usize = 20_000;
/// The unpacked size of all packages of one kernel, files that are skipped
/// included. All modules of a distribution with debugging information take about 6
/// GiB.
pub(super) const UNPACKED_MAX: u64 = 8 * GIB;
/// The members of a kernel's packages. Debian's largest have 6,000.
pub(super) const MEMBERS_MAX: u64 = 100_000;
/// The headers of one member of a package: its name, its owner's names and a link's
/// target. Linux limits names to 4 KiB (PATH_MAX).
pub(super) const HEADERS_MAX: u64 = 64 * KIB;
/// A decoder's memory, KiB. The largest dictionary of `xz -9` is 64 MiB, the
/// largest window of `zstd --ultra` is 128 MiB.
pub(super) const DECODER_MAX_KIB: u32 = 129 << 10;
/// zstd's window, a power of two: 128 MiB.
pub(super) const WINDOW_LOG_MAX: u32 = 27;
/// entry.json.
pub(super) const ENTRY_MAX: u64 = 64 * KIB;
/// SHA256SUMS: `MODULES_MAX` lines of a checksum and a path, 200 bytes each, are 4 MiB.
pub(super) const SUMS_MAX: u64 = 32 * MIB;
/// The output of apt. apt-cache shows 1 KiB per package.
pub(super) const OUTPUT_MAX: usize = 64 << 20;

/// A size in the largest unit that divides it: `256 MiB`.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        match units.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// The error for input larger than `max`.
pub(super) fn too_large(max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {}", Size(max)))
}

/// Reads to the end of at most `max` bytes of input.
///
/// # Errors
/// If there is more, or a read fails.
pub(super) fn read_at_most(from: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_large(max)) } else { Ok(bytes) }
}

/// A decoder of xz whose memory is bounded.
pub(super) fn xz<R: Read>(packed: R) -> lzma_rust2::XzReader<R> {
    lzma_rust2::XzReader::new_mem_limit(packed, true, DECODER_MAX_KIB)
}

/// A decoder of zstd whose memory is bounded.
///
/// # Errors
/// If zstd runs out of memory.
pub(super) fn zstd<'a, R: io::BufRead>(packed: R) -> io::Result<zstd::stream::read::Decoder<'a, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_unit_that_divides_it() {
        let shown = [Size(256 * MIB), Size(8 * GIB), Size(64 * KIB), Size(1500)].map(|size| size.to_string());
        assert_eq!(shown, ["256 MiB", "8 GiB", "64 KiB", "1500 bytes"]);
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        assert_eq!(read_at_most(&b"four"[..], 4).unwrap(), b"four");
        assert_eq!(read_at_most(io::repeat(0), 4).unwrap_err().to_string(), "it is larger than 4 bytes");
    }

    #[test]
    fn an_xz_dictionary_is_bounded() {
        // The header of a block that asks for a dictionary of 4 GiB - 1: size,
        // flags, LZMA2 with one byte of properties, padding, CRC32.
        let header = [2, 0, 0x21, 1, 40, 0, 0, 0];
        let mut packed = b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36".to_vec();
        packed.extend(header);
        packed.extend(crc32(&header).to_le_bytes());
        packed.extend([0; 64]);
        let error = xz(packed.as_slice()).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn a_zstd_window_is_bounded() {
        // RFC 8878: no single segment, a window of 2^31 bytes, a raw block.
        let packed = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 9, 0, 0, b'x'];
        let error = zstd(&packed[..]).unwrap().read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("too much memory"), "{error}");
    }
}
