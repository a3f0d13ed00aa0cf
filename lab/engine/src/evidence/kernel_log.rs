//! The kernel log, /dev/kmsg, from some moment on.
//!
//! Reading list: Documentation/ABI/testing/dev-kmsg; kernel/printk/printk.c
//! `devkmsg_read`; net/core/dev.c `netdev_wait_allrefs_any`, which logs
//! "unregister_netdevice: waiting for ... to become free".
//!
//! The log belongs to the machine, not to a namespace. open() checks the privilege to
//! read it (CAP_SYSLOG, if kernel.dmesg_restrict is 1); read() does not. A privileged
//! process can therefore open the log and pass the descriptor to a process in another
//! user namespace, for [`KernelLog::from_fd`].

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use faultlab_base::error::{Error, Result};

const PLACE: &str = "kernel log";
const PATH: &str = "/dev/kmsg";

/// kernel/printk: CONSOLE_EXT_LOG_MAX. read() into a smaller buffer than the record
/// fails with EINVAL.
const RECORD_MAX: usize = 8192;

/// A reader of the kernel log.
///
/// A descriptor that is passed on or duplicated shares its position: a record that
/// one reader takes is not seen by the other.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    /// Read from the kernel, not yet taken.
    records: Vec<Record>,
}

impl KernelLog {
    /// Opens the log at its end.
    ///
    /// # Errors
    /// [`Error::Missing`] if this process may not read it, or there is none.
    pub fn open() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(PATH)
            .map_err(not_opened)?;
        file.seek(SeekFrom::End(0)).map_err(|source| Error::kernel(PLACE, "lseek(SEEK_END)", source))?;
        Ok(Self { file, records: Vec::new() })
    }

    /// Continues from the current position of an open /dev/kmsg, and makes the
    /// descriptor non-blocking.
    ///
    /// # Errors
    /// If fcntl fails.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let failed = |errno: nix::Error| Error::kernel(PLACE, "fcntl(O_NONBLOCK)", errno);
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(failed)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
        Ok(Self { file: File::from(fd), records: Vec::new() })
    }

    /// Returns the descriptor, to pass it to another process. Records that were read
    /// and not taken are lost.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// The records since the log was opened or last taken from. Records that the
    /// kernel has overwritten in the meantime are missing; the numbers in
    /// [`Record::seq`] show the gap.
    ///
    /// # Errors
    /// If reading fails.
    pub fn take(&mut self) -> Result<Vec<Record>> {
        self.read()?;
        Ok(std::mem::take(&mut self.records))
    }

    /// Waits until the log has a record that `predicate` accepts, and returns the
    /// first one. [`KernelLog::take`] still returns it and all others. `condition`
    /// describes the wait in the error.
    ///
    /// # Errors
    /// [`Error::Deadline`] if none arrived `within` this time of the machine's clock;
    /// any error of reading.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn wait_for(
        &mut self,
        condition: &str,
        predicate: impl Fn(&Record) -> bool,
        within: Duration,
    ) -> Result<Record> {
        let deadline =
            || Error::Deadline { place: PLACE.to_owned(), condition: condition.to_owned(), waited: within };
        tokio::time::timeout(within, self.first(predicate)).await.map_err(|_| deadline())?
    }

    async fn first(&mut self, predicate: impl Fn(&Record) -> bool) -> Result<Record> {
        let failed = |source| Error::kernel(PLACE, "poll", source);
        let second = self.file.try_clone().map_err(failed)?;
        // SAFETY: a File returns the same open descriptor until it is dropped, and
        // `polled` owns this one and passes it to nobody.
        #[allow(unsafe_code, reason = "AsyncFd asks for a promise about the descriptor, see SAFETY")]
        let polled = unsafe { AsyncFd::register_with_interest(second, Interest::READABLE) }
            .map_err(|refused| failed(refused.into()))?;
        loop {
            if let Some(record) = self.records.iter().find(|record| predicate(record)) {
                return Ok(record.clone());
            }
            // Cleared before reading, so that a later record wakes the task again.
            polled.readable().await.map_err(failed)?.clear_ready();
            self.read()?;
        }
    }

    /// Moves the kernel's records to `records`.
    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; RECORD_MAX];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.records.extend(Record::parse(&buffer[..length])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Overwritten before it was read; the next read returns the oldest
                // record.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
                Err(source) => return Err(Error::kernel(PLACE, "read /dev/kmsg", source)),
            }
        }
    }
}

fn not_opened(source: io::Error) -> Error {
    let restricted = || fs::read_to_string("/proc/sys/kernel/dmesg_restrict").is_ok_and(|v| v.trim() == "1");
    let advice = match source.kind() {
        io::ErrorKind::PermissionDenied if restricted() => {
            "kernel.dmesg_restrict is 1 here: run as root, or with CAP_SYSLOG"
        }
        io::ErrorKind::PermissionDenied => "this user may not open it: run as root",
        io::ErrorKind::NotFound => "there is none in this container: run outside",
        _ => return Error::kernel(PLACE, "open /dev/kmsg", source),
    };
    Error::missing("the kernel log (/dev/kmsg)", advice)
}

/// A record of the kernel log. Displays as dmesg(1) shows it,
/// `[   12.345678] text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number since boot.
    pub seq: u64,
    /// Microseconds since boot, on the machine's clock.
    pub micros: u64,
    /// 0 emergency to 7 debug.
    pub level: u8,
    /// The message, without the properties of its device.
    pub text: String,
}

impl Record {
    /// Parses `prio,seq,usec,flags;text`. The lines after the first, which begin with
    /// a space, are properties (`SUBSYSTEM=net`) and are ignored. `None` if the text
    /// is malformed.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        let semicolon = line.iter().position(|byte| *byte == b';')?;
        let (header, text) = (str::from_utf8(&line[..semicolon]).ok()?, &line[semicolon + 1..]);
        // New fields may be appended to the header (`caller=`).
        let mut fields = header.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        Some(Self {
            seq: fields.next()?.parse().ok()?,
            micros: fields.next()?.parse().ok()?,
            // The rest of the number is the facility.
            level: (priority & 7).to_le_bytes()[0],
            text: unescape(text),
        })
    }

    /// The content of an `unregister_netdevice: waiting for` message. `None` for any
    /// other.
    #[must_use]
    pub fn unregister_netdevice(&self) -> Option<StuckDevice> {
        let (_, rest) = self.text.split_once("unregister_netdevice: waiting for ")?;
        let (device, rest) = rest.split_once(" to become free. Usage count = ")?;
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(StuckDevice { device: device.to_owned(), usage_count: rest[..end].parse().ok()? })
    }

    /// The message `nf_conntrack: table full, dropping packet` without what varies on
    /// one kernel: 6.17 and later add `in netns` and a number, which reads `N` here.
    /// The module's name stands only once, although some kernels since 4.4 print it
    /// twice. `None` for any other message.
    #[must_use]
    pub fn conntrack_table_full(&self) -> Option<String> {
        const MODULE: &str = "nf_conntrack: ";
        let (head, rest) = self.text.split_once("table full")?;
        // Not `expectation table full`.
        let head = head.ends_with(MODULE).then(|| &head[..head.find(MODULE).unwrap_or(0) + MODULE.len()])?;
        let rest = rest.strip_prefix(" in netns ").map_or(rest.to_owned(), |rest| {
            format!(" in netns N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        });
        Some(format!("{head}table full{rest}"))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
        write!(f, "[{seconds:>5}.{micros:06}] {}", self.text)
    }
}

/// A network device that cannot be freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckDevice {
    /// Its name.
    pub device: String,
    /// The number of references as the kernel prints it. From 5.15 on, it includes
    /// the kernel's own: one leaked reference prints as 1 before 5.15 and as 2 since.
    pub usage_count: i64,
}

impl fmt::Display for StuckDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, usage_count } = self;
        write!(f, "unregister_netdevice: waiting for {device} to become free. Usage count = {usage_count}")
    }
}

/// Reverses `msg_print_ext_body`, which writes a backslash and anything that is not
/// printable ASCII as `\xNN`.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if let [b'\\', b'x', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
    use proptest::prelude::*;

    use super::*;

    fn record(bytes: &[u8]) -> Record {
        Record::parse(bytes).expect("a record")
    }

    /// A descriptor that returns one record per read(), as /dev/kmsg does.
    fn log() -> (OwnedFd, KernelLog) {
        let (writer, reader) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty())
            .expect("socketpair");
        (writer, KernelLog::from_fd(reader).expect("from_fd"))
    }

    fn write(writer: &OwnedFd, text: &str) {
        send(writer.as_raw_fd(), text.as_bytes(), MsgFlags::empty()).expect("send");
    }

    #[test]
    fn a_full_conntrack_table_is_told_without_what_varies_on_one_kernel() {
        let told = |text: &str| record(format!("4,1,2,-;{text}\n").as_bytes()).conntrack_table_full();
        let plain = "nf_conntrack: table full, dropping packet";
        assert_eq!(told(plain).as_deref(), Some(plain));
        assert_eq!(told(&format!("nf_conntrack: {plain}")).as_deref(), Some(plain));
        let numbered = told("nf_conntrack: nf_conntrack: table full in netns 4026532008, dropping packet");
        assert_eq!(numbered.as_deref(), Some("nf_conntrack: table full in netns N, dropping packet"));
        assert_eq!(told("table full"), None);
    }

    #[test]
    fn a_record_displays_as_in_dmesg() {
        let record =
            record(b"30,1234,12345678,-,caller=T1;udevd[9]: a\\x5cb\\x0ac\\xc3\\xa9\n SUBSYSTEM=net\n");
        assert_eq!((record.seq, record.level), (1234, 6));
        assert_eq!(record.to_string(), "[   12.345678] udevd[9]: a\\b\nc\u{e9}");
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(record(b"6,1,2,-;\\xg0 \\x4").text, "\\xg0 \\x4");
    }

    #[test]
    fn the_waiting_line_is_read() {
        for (text, usage_count) in [
            ("unregister_netdevice: waiting for veth0 to become free. Usage count = 2", Some(2)),
            (
                "unregister_netdevice: waiting for veth0 to become free. Usage count = -1 (ref_tracker)",
                Some(-1),
            ),
            ("unregister_netdevice: waiting for veth0 to become free.", None),
            ("unregister_netdevice: waiting for veth0 to become free. Usage count = -", None),
            ("br0: port 1(veth0) entered disabled state", None),
        ] {
            let waiting = record(format!("0,1,2,-;{text}\n").as_bytes()).unregister_netdevice();
            let expected =
                usage_count.map(|usage_count| StuckDevice { device: "veth0".to_owned(), usage_count });
            assert_eq!(waiting, expected, "{text}");
            assert!(waiting.is_none_or(|w| text.starts_with(&w.to_string())), "{text}");
        }
    }

    #[test]
    fn what_came_since_is_taken_once() {
        let (writer, mut log) = log();
        assert_eq!(log.take().expect("take"), []);
        write(&writer, "6,1,2,-;one\n");
        write(&writer, "6,2,3,-;two\n SUBSYSTEM=net\n");
        let texts: Vec<_> = log.take().expect("take").into_iter().map(|record| record.text).collect();
        assert_eq!(texts, ["one", "two"]);
        assert_eq!(log.take().expect("take"), []);
    }

    #[tokio::test]
    async fn a_record_is_awaited_and_stays_to_be_taken() {
        let (writer, mut log) = log();
        let late = async {
            tokio::task::yield_now().await;
            write(&writer, "6,1,2,-;one\n");
            tokio::task::yield_now().await;
            write(&writer, "6,2,3,-;two\n");
        };
        let wait = log.wait_for("the word two", |record| record.text == "two", Duration::from_secs(10));
        let (found, ()) = tokio::join!(wait, late);
        assert_eq!(found.expect("two").seq, 2);
        assert_eq!(log.take().expect("take").len(), 2);
    }

    #[tokio::test]
    async fn the_deadline_names_the_condition() {
        let (_writer, mut log) = log();
        let error =
            log.wait_for("the word two", |_| true, Duration::from_millis(10)).await.expect_err("none");
        assert_eq!(error.to_string(), "kernel log: waited 0.01 s for the word two");
    }

    proptest! {
        #[test]
        fn no_record_panics(text in "[0-9]{0,2},[0-9]{0,22},[0-9]{1,3}[-,;]{1,3}(\\\\x?[0-9a-g]{0,3}|.){0,20}") {
            if let Some(record) = Record::parse(text.as_bytes()) {
                let _ = (record.to_string(), record.unregister_netdevice(), record.conntrack_table_full());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::parse(&bytes);
        }
    }
}
