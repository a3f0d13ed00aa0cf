//! Packets that the kernel dropped, with the function and the reason: what the
//! tracepoint skb:kfree_skb reports, and the start of the packet.
//!
//! A BPF program writes them to a ring, and wakes no reader. Attaching it takes
//! CAP_BPF and CAP_PERFMON on the machine; later steps need no privilege. A process
//! that has them attaches the program and then leaves the machine's namespaces. The
//! program is removed when its last descriptor is closed.
//!
//! The kernel has recorded drop reasons since Linux 5.17 (c504e5c2f964, "net: skb:
//! introduce kfree_skb_reason()"), most of them since 6.0.
//!
//! - include/net/dropreason-core.h, the meanings of the reasons
//! - include/trace/events/skb.h; kernel/trace/bpf_trace.c

mod bpf;
mod btf;
mod program;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use std::{fs, io};

use bpf::{Reader, Ring, Value};
use btf::Btf;
use faultlab_base::error::{Error, Result};
use faultlab_model::recording::Dropped;
use faultlab_net::network::Namespace;
use faultlab_net::wire::segment::Header;
use program::{Maps, Offsets, note};

const PLACE: &str = "drop reasons";
/// Room for some 4,800 records of 216 bytes.
const RING: u32 = 1 << 20;
/// The common prefix of the names of reasons.
const PREFIX: &str = "SKB_DROP_REASON_";

/// The attached BPF program, which records the packets that the kernel drops in one
/// user namespace. Dropping this value detaches it.
#[derive(Debug)]
pub struct Attached {
    notes: Ring,
    settings: Value<16>,
    reasons: Vec<(u32, String)>,
    _program: OwnedFd,
}

impl Attached {
    /// Has the kernel record dropped packets. Nothing is recorded before
    /// [`Attached::listen`].
    ///
    /// # Errors
    /// [`Error::Missing`] if the kernel has no drop reasons, has no BTF, or denies
    /// this process access.
    pub fn attach() -> Result<Self> {
        let described = fs::read(btf::OF_THE_KERNEL).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::missing(
                "the kernel's description of its types (/sys/kernel/btf/vmlinux)",
                "run on a kernel that was built with CONFIG_DEBUG_INFO_BTF",
            ),
            _ => Error::kernel(PLACE, format!("read {}", btf::OF_THE_KERNEL), e),
        })?;
        let btf = Btf::parse(described)?;
        let named = |(value, name): (u32, &str)| Some((value, name.strip_prefix(PREFIX)?.to_owned()));
        let reasons: Vec<_> = btf.enumerators("skb_drop_reason").into_iter().filter_map(named).collect();
        let (Some(offsets), false) = (Offsets::of(&btf), reasons.is_empty()) else {
            return Err(Error::missing("the kernel's drop reasons", "run on Linux 5.17 or later"));
        };
        let failed = |tried: &'static str| move |e: io::Error| refused(tried, e);
        let notes = Ring::new(RING).map_err(failed("make a ring"))?;
        let settings = Value::new().map_err(failed("make an array"))?;
        let format = Value::constant(program::FORMAT).map_err(failed("make a constant"))?;
        let maps =
            Maps { settings: settings.descriptor(), format: format.descriptor(), notes: notes.descriptor() };
        let program = bpf::attach(c"kfree_skb", &program::program(&offsets, maps))
            .map_err(failed("attach a program to kfree_skb"))?;
        Ok(Self { notes, settings, reasons, _program: program })
    }

    /// Starts to record what is dropped in the network namespaces of this process's
    /// user namespace.
    ///
    /// # Errors
    /// If the kernel does not allow it: up to 5.18, it does not in a user namespace.
    pub fn listen(self) -> Result<SharedDrops> {
        let own = fs::metadata("/proc/self/ns/user").map_err(|e| Error::kernel(PLACE, "stat ns/user", e))?;
        let mut settings = [0; 16];
        settings[..8].copy_from_slice(&own.ino().to_ne_bytes());
        let reader = self.notes.reader().map_err(|e| Error::kernel(PLACE, "mmap the ring", e))?;
        self.settings.set(&settings).map_err(|e| Error::kernel(PLACE, "say whose packets", e))?;
        let reading = RefCell::new(Reading { reader, attached: self, noted: vec![], lost: 0 });
        Ok(SharedDrops(Some(reading)))
    }
}

/// The error for a kernel that denies this process access.
fn refused(tried: &'static str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => Error::missing(
            format!("the permission to see what the kernel drops ({tried}: {error})"),
            "run as root, or with CAP_BPF and CAP_PERFMON",
        ),
        _ => Error::kernel(PLACE, tried, error),
    }
}

/// The dropped packets, shared by all arms of a worker.
#[derive(Debug, Default)]
pub struct SharedDrops(Option<RefCell<Reading>>);

#[derive(Debug)]
struct Reading {
    reader: Reader,
    attached: Attached,
    /// The records read and not yet taken, with the number of their namespace.
    noted: Vec<(u64, Dropped)>,
    /// The number of lost records, as of the last request.
    lost: u64,
}

impl SharedDrops {
    /// The packets dropped in a namespace since `since`, in CLOCK_MONOTONIC time, and
    /// since the last call, in order. `since` matters because another namespace may
    /// have had its number before.
    ///
    /// # Errors
    /// If the namespace's number cannot be read.
    pub fn take(&self, namespace: &Namespace, since: Duration) -> Result<Vec<Dropped>> {
        let Some(reading) = &self.0 else { return Ok(vec![]) };
        let Reading { reader, attached, noted, .. } = &mut *reading.borrow_mut();
        while let Some(bytes) = reader.next() {
            noted.extend(decode(&bytes, &attached.reasons));
        }
        let number = namespace.inode()?;
        let (taken, left) = std::mem::take(noted).into_iter().partition(|(of, _)| *of == number);
        *noted = left;
        Ok(Vec::into_iter(taken).map(|(_, dropped)| dropped).filter(|d| d.at >= since).collect())
    }

    /// Discards the records that were never requested: those of namespaces that are
    /// not hosts.
    pub fn forget(&self) {
        if let Some(reading) = &self.0 {
            let Reading { reader, noted, .. } = &mut *reading.borrow_mut();
            while reader.next().is_some() {}
            noted.clear();
        }
        // Reset the count of lost records as well.
        let _ = self.lost();
    }

    /// The number of drops that were not recorded, because the ring was full, since the
    /// last call.
    ///
    /// # Errors
    /// If the kernel call fails.
    pub fn lost(&self) -> Result<u64> {
        let Some(reading) = &self.0 else { return Ok(0) };
        let mut reading = reading.borrow_mut();
        let settings = reading.attached.settings.get();
        let settings = settings.map_err(|e| Error::kernel(PLACE, "ask for what had no room", e))?;
        let lost = u64::from_ne_bytes(settings[8..].try_into().expect("eight bytes"));
        Ok(lost - std::mem::replace(&mut reading.lost, lost))
    }
}

/// A decoded record, with the number of its network namespace.
fn decode(note: &[u8], reasons: &[(u32, String)]) -> Option<(u64, Dropped)> {
    let note: &[u8; note::LENGTH] = note.try_into().ok()?;
    let word = |at: usize| u32::from_ne_bytes(note[at..at + 4].try_into().expect("four bytes"));
    let at = u64::from_ne_bytes(note[note::AT..note::AT + 8].try_into().expect("eight bytes"));
    let name = &note[note::FUNCTION..note::PACKET];
    let name = String::from_utf8_lossy(name.split(|&b| b == 0).next()?);
    let reason = reasons.iter().find(|(value, _)| *value == word(note::REASON));
    // ETH_P_IP, ETH_P_IPV6.
    let ip = [[0x08, 0x00], [0x86, 0xdd]].contains(&[note[note::PROTOCOL], note[note::PROTOCOL + 1]]);
    let segment = ip.then(|| Header::of_packet(&note[note::PACKET..])).flatten();
    let dropped = Dropped {
        at: Duration::from_nanos(at),
        reason: reason.map(|(_, name)| name.clone()).filter(|name| name != "NOT_SPECIFIED"),
        function: name.into_owned(),
        segment,
        frame: None,
    };
    Some((word(note::NAMESPACE).into(), dropped))
}
