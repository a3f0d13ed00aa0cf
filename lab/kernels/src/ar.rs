//! The ar archive format of Debian packages.
//!
//! Reading: deb(5), ar(5).

use std::io::{self, Read, Seek, SeekFrom};

/// ar(5): the archive's magic string.
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// ar(5): name 16, mtime 12, uid 6, gid 6, mode 8, size 10, "`\n".
const HEADER: usize = 60;

/// A member of an ar archive.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size: u64,
}

/// Positions `file` at the first byte of the data member.
///
/// # Errors
/// A clause: the file is not a package, is truncated or damaged.
pub(super) fn find_data(file: &mut (impl Read + Seek)) -> Result<Member, String> {
    let failed = |e: io::Error| format!("cannot be read: {e}");
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    if magic != MAGIC {
        return Err("is no Debian package (no ar archive)".into());
    }
    let mut at = MAGIC.len() as u64;
    loop {
        if at >= length {
            return Err("is cut short or no Debian package: it holds no data.tar".into());
        }
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut header = Vec::new();
        file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(failed)?;
        if header.len() < HEADER {
            return Err("is cut short, in an ar header".into());
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let name = text(0..16).trim_end_matches('/').to_owned();
        let size: u64 =
            text(48..58).parse().map_err(|_| "is damaged: an ar header has no size".to_owned())?;
        let end = at + HEADER as u64 + size;
        if end > length {
            return Err(format!("is cut short: {} ends {} bytes too early", shown(&name), end - length));
        }
        if name.starts_with("data.tar") {
            return Ok(Member { name, size });
        }
        // ar(5): members begin at even bytes.
        at = end + end % 2;
    }
}

/// A member's name for an error message; in Debug form if it is unusual.
pub(super) fn shown(name: &str) -> String {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A package whose data archive has this name and these bytes.
    pub(crate) fn ar(data: &str, bytes: &[u8]) -> Vec<u8> {
        let mut ar = MAGIC.to_vec();
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), (data, bytes)] {
            ar.extend(header(name, bytes.len() as u64));
            ar.extend(bytes);
        }
        ar
    }

    pub(crate) fn header(name: &str, size: u64) -> Vec<u8> {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, "100644").into_bytes()
    }

    #[test]
    fn an_odd_name_is_shown_quoted() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(header("\x1b[2Jx", 99));
        let error = find_data(&mut io::Cursor::new(bytes)).unwrap_err();
        assert_eq!(error, r#"is cut short: "\u{1b}[2Jx" ends 99 bytes too early"#);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), at in 0usize..400) {
            let mut whole = ar("data.tar", &[7; 100]);
            whole.truncate(at);
            whole.extend(bytes);
            let _ = find_data(&mut io::Cursor::new(whole));
        }
    }
}
