//! Loads a guest's modules.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{INIT, only_as_init};
use faultlab_base::error::{Error, Result};

/// Loads modules in this order. A module that is already loaded is not an error.
///
/// A module's signature is removed first: verifying all of them takes half of a boot's
/// time under emulation. If the kernel requires signatures (CONFIG_MODULE_SIG_FORCE),
/// the module is loaded with its signature.
///
/// # Errors
/// The module that failed, with the kernel's errno.
pub fn load_modules<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<()> {
    only_as_init()?;
    for path in files {
        let path = path.as_ref();
        // The archive numbers them in load order.
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = file.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches('-');
        let failed = |e| Error::kernel(INIT, format!("load the module {name}"), e);
        let signature = cut_signature(path).map_err(failed)?;
        let loaded = match (load_module(path), signature) {
            (Err(e), Some(signature)) if e.raw_os_error() == Some(libc::EKEYREJECTED) => {
                File::options()
                    .append(true)
                    .open(path)
                    .and_then(|mut file| file.write_all(&signature))
                    .map_err(failed)?;
                load_module(path)
            }
            (loaded, _) => loaded,
        };
        match loaded {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(())
}

fn load_module(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: finit_module(2) reads the descriptor, which `file` keeps open,
    // and a C string; both outlive the call.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cuts the signature off a module's file and returns it; `None` if it has none.
fn cut_signature(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut tail = [0; TRAILER];
    let Some(at) = length.checked_sub(TRAILER as u64) else { return Ok(None) };
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut tail)?;
    let Some(start) = signature_length(&tail).and_then(|signature| length.checked_sub(signature)) else {
        return Ok(None);
    };
    let mut signature = vec![];
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut signature)?;
    file.set_len(start)?;
    Ok(Some(signature))
}

/// include/linux/module_signature.h: struct module_signature, then
/// MODULE_SIG_STRING.
const TRAILER: usize = 12 + SIGNED.len();
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The length of the signature at a module's end, from the last bytes of the file.
fn signature_length(tail: &[u8; TRAILER]) -> Option<u64> {
    let (header, mark) = tail.split_at(12);
    // __be32 sig_len is the structure's last field.
    let length = u32::from_be_bytes(header[8..].try_into().expect("four bytes"));
    (mark == SIGNED).then_some(u64::from(length) + TRAILER as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_signature_is_cut_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("veth.ko");
        // struct module_signature: PKCS7, no key id, 5 bytes of signature.
        let signature = [b"12345".as_slice(), &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5], SIGNED].concat();
        fs::write(&path, [b"module".as_slice(), &signature].concat()).unwrap();
        assert_eq!(cut_signature(&path).unwrap(), Some(signature.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"module");
        assert_eq!(cut_signature(&path).unwrap(), None);
        // A signature that claims to be longer than the file is not one.
        fs::write(&path, &signature[4..]).unwrap();
        assert_eq!(cut_signature(&path).unwrap(), None);
    }
}
