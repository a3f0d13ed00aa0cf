//! The system call bpf(2), as far as a tracepoint program needs it.
//!
//! - bpf(2); include/uapi/linux/bpf.h, union bpf_attr
//! - Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

// enum bpf_cmd
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_PROG_LOAD: i32 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_MAP_FREEZE: i32 = 22;
// enum bpf_map_type
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
// enum bpf_prog_type
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

// The part of union bpf_attr that each command reads.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapElement {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct TracepointOpen {
    name: u64,
    program: u32,
    _padding: u32,
}

/// Calls bpf(2).
///
/// `attribute` is the part of union bpf_attr that `command` reads. Its pointers are
/// valid during the call.
#[allow(unsafe_code, reason = "a system call that neither libc nor nix wraps")]
fn ask<T>(command: i32, attribute: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads the given number of bytes from a value that outlives
    // the call. The functions below make its pointers from references, which live as
    // long.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    i32::try_from(result).ok().filter(|&r| r >= 0).ok_or_else(io::Error::last_os_error)
}

/// Calls bpf(2) where the result is a descriptor. The kernel sets close-on-exec.
#[allow(unsafe_code, reason = "a descriptor that was just made")]
fn open<T>(command: i32, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new, so nothing else owns it.
    ask(command, attribute).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

fn number(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

/// A map with one array element of `N` bytes.
#[derive(Debug)]
pub(super) struct Value<const N: usize>(OwnedFd);

impl<const N: usize> Value<N> {
    /// Creates one that programs may write to.
    pub(super) fn new() -> io::Result<Self> {
        Self::make(0)
    }

    /// Creates one that is read-only from now on.
    pub(super) fn constant(value: [u8; N]) -> io::Result<Self> {
        let array = Self::make(BPF_F_RDONLY_PROG)?;
        array.set(&value)?;
        ask(BPF_MAP_FREEZE, &number(&array.0))?;
        Ok(array)
    }

    fn make(map_flags: u32) -> io::Result<Self> {
        let value_size = u32::try_from(N).map_err(io::Error::other)?;
        let kind = BPF_MAP_TYPE_ARRAY;
        let create = MapCreate { map_type: kind, key_size: 4, value_size, max_entries: 1, map_flags };
        open(BPF_MAP_CREATE, &create).map(Self)
    }

    pub(super) fn set(&self, value: &[u8; N]) -> io::Result<()> {
        let (key, flags) = (0_u32, 0);
        let (key, value) = (address(&key), address(value));
        let element = MapElement { map: number(&self.0), _padding: 0, key, value, flags };
        ask(BPF_MAP_UPDATE_ELEM, &element).map(drop)
    }

    pub(super) fn get(&self) -> io::Result<[u8; N]> {
        let (key, mut got) = (0_u32, [0; N]);
        let value = std::ptr::from_mut(&mut got) as u64;
        let element = MapElement { map: number(&self.0), _padding: 0, key: address(&key), value, flags: 0 };
        ask(BPF_MAP_LOOKUP_ELEM, &element)?;
        Ok(got)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Attaches a program to a tracepoint until the returned descriptor is closed.
///
/// The error contains the end of the verifier's log.
pub(super) fn attach(tracepoint: &std::ffi::CStr, program: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 1 << 16];
    let load = |log: Option<&mut Vec<u8>>| {
        let (level, size, log) = log.map_or((0, 0, 0), |log| {
            (1, log.len(), std::ptr::from_mut(log.as_mut_slice()).cast::<u8>() as u64)
        });
        let program = ProgramLoad {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
            program: address(program),
            // Programs that read kernel memory must declare a GPL-compatible license.
            license: address(c"Dual MIT/GPL"),
            log_level: level,
            log_size: u32::try_from(size).map_err(io::Error::other)?,
            log,
        };
        open(BPF_PROG_LOAD, &program)
    };
    let program = load(None).map_err(|error| {
        if error.raw_os_error() != Some(libc::EACCES) && error.raw_os_error() != Some(libc::EINVAL) {
            return error;
        }
        let _ = load(Some(&mut log));
        let said = String::from_utf8_lossy(&log);
        let said = said.trim_end_matches('\0').trim_end();
        let last = said.lines().rev().take(3).collect::<Vec<_>>();
        io::Error::new(error.kind(), format!("{error}: {}", last.join(" | ")))
    })?;
    let name = address(tracepoint);
    open(BPF_RAW_TRACEPOINT_OPEN, &TracepointOpen { name, program: number(&program), _padding: 0 })
}

/// A ring that programs write to and this process reads.
#[derive(Debug)]
pub(super) struct Ring {
    map: OwnedFd,
    bytes: usize,
}

/// The pages of a ring, mapped into this process.
#[derive(Debug)]
pub(super) struct Reader {
    /// A page with the consumer position, up to which all records were read.
    consumed: Pages,
    /// A page with the producer position, followed by the ring, mapped twice.
    produced: Pages,
    page: usize,
    mask: usize,
}

/// BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT and BPF_RINGBUF_HDR_SZ.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

impl Ring {
    /// Creates a ring of this many bytes, a power of two of pages.
    pub(super) fn new(bytes: u32) -> io::Result<Self> {
        let create = MapCreate {
            map_type: BPF_MAP_TYPE_RINGBUF,
            key_size: 0,
            value_size: 0,
            max_entries: bytes,
            map_flags: 0,
        };
        Ok(Self { map: open(BPF_MAP_CREATE, &create)?, bytes: bytes as usize })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.map.as_raw_fd()
    }

    pub(super) fn reader(&self) -> io::Result<Reader> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(4096);
        let write = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Ok(Reader {
            consumed: Pages::of(&self.map, 0, page, write)?,
            produced: Pages::of(&self.map, page, page + 2 * self.bytes, ProtFlags::PROT_READ)?,
            page,
            mask: self.bytes - 1,
        })
    }
}

#[allow(unsafe_code, reason = "the ring is the kernel's memory")]
impl Reader {
    /// The next record, if there is one.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        // SAFETY: both positions are aligned words at the beginning of pages that
        // stay mapped as long as `self`. The kernel and this process access them
        // atomically.
        let (consumed, produced) = unsafe {
            (
                self.consumed.start.cast::<AtomicUsize>().as_ref(),
                self.produced.start.cast::<AtomicUsize>().as_ref(),
            )
        };
        loop {
            let at = consumed.load(Ordering::Relaxed);
            if at >= produced.load(Ordering::Acquire) {
                return None;
            }
            // SAFETY: a record lies in the first of the two mappings of the ring, or
            // continues in the second; its header is 8 aligned bytes.
            let record = unsafe { self.produced.start.add(self.page + (at & self.mask)) };
            // SAFETY: as above; the kernel writes the length last.
            let length = unsafe { record.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if length & BUSY != 0 {
                return None;
            }
            let size = (length & !(BUSY | DISCARDED)) as usize;
            // SAFETY: the record's bytes follow its header, inside the ring, and
            // the kernel does not write to them until they are consumed.
            let bytes = unsafe { std::slice::from_raw_parts(record.add(HEADER).as_ptr(), size) }.to_vec();
            consumed.store(at + (HEADER + size).next_multiple_of(8), Ordering::Release);
            if length & DISCARDED == 0 {
                return Some(bytes);
            }
        }
    }
}

/// Pages that this process shares with the kernel.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
}

impl Pages {
    #[allow(unsafe_code, reason = "mmap")]
    fn of(map: &OwnedFd, offset: usize, bytes: usize, access: ProtFlags) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping, at an address chosen by the kernel, touches no
        // memory that is in use.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, offset) }?;
        Ok(Self { start: start.cast(), bytes })
    }
}

impl Drop for Pages {
    #[allow(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any longer.
        let result = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}
