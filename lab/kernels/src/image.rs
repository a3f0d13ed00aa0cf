//! Recognises a kernel image by its bzImage header.
//!
//! Reading: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::beneath::{is_release, quoted};
use super::directory::regular_file;
use super::limits::{IMAGE_MAX, Size};
use faultlab_base::error::{Error, Result};

/// The maximum size of the real-mode part: the boot sector and 255 setup sectors.
const SETUP_MAX: u64 = 256 * 512;

/// The magic number of an RPM package.
const RPM: &[u8] = b"\xed\xab\xee\xdb";
/// The magic string of a Debian package, an ar archive: deb(5).
const DEB: &[u8] = b"!<arch>\n";

/// A recognised kernel image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The release, as `uname -r` prints it.
    pub release: String,
}

impl Image {
    /// Checks that `path` is a complete bzImage.
    ///
    /// # Errors
    /// One sentence: the file cannot be read, is not a bzImage, is truncated, is
    /// larger than a guest's memory, or has no version.
    pub fn open(path: &Path) -> Result<Self> {
        let read = regular_file(path).and_then(Self::read);
        read.map_err(|e| Error::kernel("kernel image", format!("read {}", path.display()), e))?
            .map_err(|why| Error::Lab(format!("{} is no bzImage: {why}", path.display())))
    }

    /// Recognises the bzImage in an open file. The inner error is a clause: why it is
    /// not one.
    pub(super) fn read(mut file: File) -> io::Result<std::result::Result<Self, String>> {
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let mut setup = Vec::new();
        file.take(SETUP_MAX).read_to_end(&mut setup)?;
        Ok(Self::parse(&setup, length))
    }

    /// Recognises an image of `length` bytes by its first bytes, `setup`.
    fn parse(setup: &[u8], length: u64) -> std::result::Result<Self, String> {
        if setup.starts_with(b"\x7fELF") {
            return Err(
                "it is an ELF file, perhaps vmlinux; the kernel's build makes arch/x86/boot/bzImage".into()
            );
        }
        if setup.starts_with(RPM) {
            return Err("it is an RPM package: unpack it and the one with its modules, by rpm2cpio FILE | cpio -idm, \
                        and add lib/modules/RELEASE/vmlinuz"
                .into());
        }
        if setup.starts_with(DEB) {
            return Err(
                "it is a Debian package: give `faultlab kernel add` all packages of the kernel, with the \
                        ending .deb"
                    .into(),
            );
        }
        if setup.is_empty() {
            return Err("it is empty".into());
        }
        // boot.rst: boot_flag 0xAA55 at 0x1fe, header "HdrS" at 0x202.
        if setup.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || setup.get(0x202..0x206) != Some(b"HdrS") {
            return Err("it has no HdrS at 0x202".into());
        }
        let le16 = |at: usize| setup.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let cut = || "it is cut short".to_owned();
        // boot.rst: "For backwards compatibility, if setup_sects contains 0, the real value is 4."
        let setup_sectors = match setup.get(0x1f1).ok_or_else(cut)? {
            0 => 4,
            n => u64::from(*n),
        };
        if length > IMAGE_MAX {
            return Err(format!("it has {length} bytes, and may have {}", Size(IMAGE_MAX)));
        }
        let syssize = setup
            .get(0x1f4..0x1f8)
            .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .ok_or_else(cut)?;
        let expected = (setup_sectors + 1) * 512 + syssize * 16;
        // syssize is rounded up to 16 bytes; a signature may follow.
        if length + 16 <= expected {
            return Err(format!("it is cut short, {length} bytes of {expected}"));
        }
        // boot.rst: kernel_version "contains a pointer to a NUL-terminated
        // human-readable kernel version number string, less 0x200".
        let at = match le16(0x20e) {
            None | Some(0) => return Err("it carries no version".into()),
            Some(pointer) => usize::from(pointer) + 0x200,
        };
        let text = setup.get(at..).unwrap_or_default();
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        let release = String::from_utf8_lossy(text).split_whitespace().next().unwrap_or_default().to_owned();
        if !is_release(&release) {
            return Err(format!("its version is not one ({})", quoted(release.as_bytes())));
        }
        Ok(Self { release })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest image that is accepted as a bzImage.
    pub(crate) fn bzimage(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x400 + 32];
        image[0x1f1] = 1;
        image[0x1f4] = 2; // 32 bytes of protected-mode code
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x80;
        let version = format!("{release} (someone@somewhere) #1 SMP\0");
        image[0x280..0x280 + version.len()].copy_from_slice(version.as_bytes());
        image
    }

    #[test]
    fn a_release_is_the_first_word_of_the_version() {
        let image = bzimage("6.12.57+deb13-cloud-amd64");
        let parsed = Image::parse(&image, image.len() as u64).unwrap();
        assert_eq!(parsed.release, "6.12.57+deb13-cloud-amd64");
    }

    #[test]
    fn what_is_no_image_says_why() {
        let image = bzimage("6.1.0");
        assert_eq!(Image::parse(b"", 0).unwrap_err(), "it is empty");
        assert!(Image::parse(b"\x7fELF\x02", 5).unwrap_err().contains("ELF"));
        assert!(
            Image::parse(b"\xed\xab\xee\xdb\x03", 5).unwrap_err().starts_with("it is an RPM package: unpack")
        );
        assert!(Image::parse(b"!<arch>\ndebian", 14).unwrap_err().starts_with("it is a Debian package: "));
        assert_eq!(Image::parse(&[0; 4096], 4096).unwrap_err(), "it has no HdrS at 0x202");
        assert_eq!(Image::parse(&image, 1000).unwrap_err(), "it is cut short, 1000 bytes of 1056");
        for release in ["../../etc", "6.1\x1b[2J", "6.1\u{202e}", "6/1"] {
            assert!(Image::parse(&bzimage(release), 1056).unwrap_err().contains("not one"));
        }
        let error = Image::parse(&image, 3 << 30).unwrap_err();
        assert_eq!(error, "it has 3221225472 bytes, and may have 256 MiB");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2048), at in 0usize..2048) {
            let mut image = bzimage("6.1.0");
            image.truncate(at);
            let _ = Image::parse(&image, at as u64);
            let _ = Image::parse(&bytes, bytes.len() as u64);
        }
    }
}
