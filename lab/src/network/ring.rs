//! A packet socket with the kernel's receive ring.
//!
//! The ring takes bursts that a socket buffer of net.core.rmem_max would lose,
//! and frames are read from it without a system call.
//!
//! - packet(7); Documentation/networking/packet_mmap.rst, TPACKET_V2
//! - net/packet/af_packet.c, tpacket_rcv(): what the kernel writes into a slot

#![allow(clippy::cast_possible_truncation, reason = "C gives the kernel's small constants wide types")]

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libc::{c_int, sockaddr_ll, tpacket_req, tpacket_stats, tpacket2_hdr};
use nix::net::if_::if_nametoindex;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::error::{Error, Result};
use crate::network::Namespace;

/// Bytes of a block, the unit in which the kernel allocates.
const BLOCK: usize = 1 << 16;

/// How large a ring is.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Bytes of a slot: the kernel's headers, about 80 bytes, and a frame. A
    /// power of two, so that slots fill a block.
    pub(super) slot: usize,
    /// Blocks of [`BLOCK`] bytes, at most.
    pub(super) blocks: usize,
}

/// Whole frames, 2048 of them: 4 MiB. On a busy machine, larger ones take
/// seconds to come by where all arms of a scenario ask for theirs.
const WIRE: Shape = Shape { slot: 2048, blocks: 64 };
/// How many rings would fill the memory of the machine: twice as many as all
/// scenarios that run side by side may ask for.
const RINGS: usize = 512;
/// Where the address of a frame lies in its slot, TPACKET_ALIGN(sizeof(struct tpacket2_hdr)).
const ADDRESS: usize = size_of::<tpacket2_hdr>().next_multiple_of(16);
/// The least time between two tries of a full device queue.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// A frame as it arrived.
pub(crate) struct Arrival {
    /// When the kernel received it, on CLOCK_MONOTONIC.
    pub(crate) at: Duration,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
}

/// A frame as it passed an interface.
#[derive(Debug)]
pub(crate) struct Seen {
    /// When, on CLOCK_MONOTONIC.
    pub(crate) at: Duration,
    /// The index of the interface.
    pub(crate) interface: u32,
    /// Whether it left the host.
    pub(crate) outgoing: bool,
    /// How long it is.
    pub(crate) length: u32,
    /// As much of it as a slot takes.
    pub(crate) bytes: Vec<u8>,
}

/// What became of a frame that was to be sent.
pub(crate) enum Sent {
    /// The kernel has it.
    Done,
    /// The socket's buffer is full: wait until it is writable.
    Full,
    /// The device's queue is full: try again after [`RETRY`].
    Queue,
    /// The interface is down or deleted.
    Gone,
}

/// A packet socket bound to an interface.
///
/// The kernel has everyone who sets up or closes such a ring wait for RCU grace
/// periods (net/packet/af_packet.c, synchronize_net), on a busy machine 100 ms
/// each. So rings are opened [side by side](open_all), and closed in threads
/// that nobody waits for.
pub(crate) struct Ring(Option<Open>);

/// A ring until it is closed.
pub(crate) struct Open {
    place: String,
    socket: Socket,
    slots: Mapping,
    next: usize,
    last: Duration,
    lost: u64,
}

impl Ring {
    /// Opens a ring on `ifname` in `ns`, in promiscuous mode.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, without the interface, or where it is down.
    pub(crate) fn open(wire: &str, ns: &Namespace, ifname: &str) -> Result<Self> {
        let place = format!("wire {wire}, {} in {}", ifname, ns.name());
        let failed = |tried: &'static str| {
            let place = place.clone();
            move |source: io::Error| Error::kernel(place, tried, source)
        };
        let index = ns
            .enter(|| if_nametoindex(ifname))
            .map_err(|errno| Error::kernel(&place, "if_nametoindex", errno))?;
        let index = c_int::try_from(index).map_err(|_| Error::Lab(format!("{place}: index {index}")))?;
        let socket = socket(ns, &place)?;
        let shape = allocate(&socket, WIRE).map_err(failed("PACKET_RX_RING"))?;
        let ring = Open::over(place.clone(), socket, shape)?;
        // Linux 4.20; an older kernel's own frames are left out by `next` alone.
        match set(&ring.socket, libc::PACKET_IGNORE_OUTGOING, &c_int::from(true)) {
            Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => {
                return Err(failed("PACKET_IGNORE_OUTGOING")(error));
            }
            _ => {}
        }
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&ring.socket, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)
            .map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
        bind(&ring.socket, index).map_err(failed("bind"))?;
        // af_packet.c, packet_do_bind(): ENETDOWN is left behind by an interface that is down.
        if let Some(error) = ring.socket.take_error().map_err(failed("SO_ERROR"))? {
            return Err(failed("bind")(error));
        }
        Ok(Self(Some(ring)))
    }
}

/// Opens many rings in the time of one.
///
/// # Errors
/// The first that `open` fails with.
pub(crate) fn open_all<T: Send>(
    places: impl IntoIterator<Item = T>,
    open: impl Fn(T) -> Result<Ring> + Sync,
) -> Result<Vec<Ring>> {
    thread::scope(|scope| {
        let open = &open;
        let threads: Vec<_> = places.into_iter().map(|place| scope.spawn(move || open(place))).collect();
        threads.into_iter().map(|thread| thread.join().expect("opening a ring does not panic")).collect()
    })
}

impl Deref for Ring {
    type Target = Open;

    fn deref(&self) -> &Open {
        self.0.as_ref().expect("a ring is open until it is dropped")
    }
}

impl DerefMut for Ring {
    fn deref_mut(&mut self) -> &mut Open {
        self.0.as_mut().expect("a ring is open until it is dropped")
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.place())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let open = self.0.take();
        // Where no thread is to be had, it is closed here.
        let _ = thread::Builder::new().spawn(move || drop(open));
    }
}

impl Open {
    /// Maps the ring that a socket has.
    ///
    /// # Errors
    /// Where there is no room for it (ENOMEM).
    pub(super) fn over(place: String, socket: Socket, shape: Shape) -> Result<Self> {
        let slots = Mapping::new(&socket, shape).map_err(|e| Error::kernel(&place, "mmap", e))?;
        Ok(Self { place, socket, slots, next: 0, last: Duration::ZERO, lost: 0 })
    }

    /// The interface, in messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Whether a frame waits to be taken.
    pub(crate) fn has_more(&self) -> bool {
        // Looked at, not taken: a Slot gives itself back when it is dropped.
        self.slots.full(self.next).map(std::mem::forget).is_some()
    }

    /// The next frame that arrived, if one has.
    ///
    /// # Errors
    /// A frame that this wire cannot carry as it is: longer than a slot, with
    /// a VLAN tag, or with a checksum that an offload was to complete.
    pub(crate) fn take(&mut self) -> Result<Option<Arrival>> {
        loop {
            let Some(slot) = self.slots.full(self.next) else { return Ok(None) };
            self.next = (self.next + 1) % self.slots.len();
            let header = slot.header();
            if slot.address().sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            let wrong = if header.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                "has a VLAN tag"
            } else if header.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                "has a partial checksum: switch the offloads of the other end off"
            } else if header.tp_len != header.tp_snaplen {
                "is longer than a slot of the ring: switch the offloads of the other end off"
            } else if let Some(bytes) = slot.frame(&header) {
                let bytes = bytes.to_vec();
                let stamp = Duration::new(header.tp_sec.into(), header.tp_nsec);
                drop(slot);
                return Ok(Some(Arrival { at: self.monotonic(stamp)?, bytes }));
            } else {
                "lies outside its slot"
            };
            return Err(Error::Lab(format!("{}: a frame of {} bytes {wrong}", self.place, header.tp_len)));
        }
    }

    /// The next frame that passed, if one has, whatever it is. The wall's clock
    /// is [`ahead`] by so much.
    pub(super) fn look(&mut self, ahead: Duration) -> Option<Seen> {
        let slot = self.slots.full(self.next)?;
        self.next = (self.next + 1) % self.slots.len();
        let (header, address) = (slot.header(), slot.address());
        let bytes = slot.frame(&header).unwrap_or_default().to_vec();
        drop(slot);
        let stamp = Duration::new(header.tp_sec.into(), header.tp_nsec);
        self.last = stamp.saturating_sub(ahead).max(self.last);
        Some(Seen {
            at: self.last,
            interface: u32::try_from(address.sll_ifindex).unwrap_or_default(),
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            length: header.tp_len,
            bytes,
        })
    }

    /// Hands `frame` to the interface.
    ///
    /// # Errors
    /// What the kernel says, except for what [`Sent`] tells.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<Sent> {
        let Err(error) = self.socket.send(frame) else { return Ok(Sent::Done) };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Sent::Full),
            Some(libc::ENOBUFS) => Ok(Sent::Queue),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Ok(Sent::Gone),
            _ => Err(Error::kernel(&self.place, format!("send {} bytes", frame.len()), error)),
        }
    }

    /// How many frames the kernel could not put into the ring until now.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub(crate) fn lost(&mut self) -> Result<u64> {
        let statistics =
            statistics(&self.socket).map_err(|e| Error::kernel(&self.place, "PACKET_STATISTICS", e))?;
        self.lost += u64::from(statistics.tp_drops); // reading sets it to zero
        Ok(self.lost)
    }

    /// Turns a receive time stamp, which is CLOCK_REALTIME, into CLOCK_MONOTONIC.
    ///
    /// The wall clock may be set between receipt and reading; a frame is never
    /// from the future nor older than the one before it.
    fn monotonic(&mut self, stamp: Duration) -> Result<Duration> {
        let now = now();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME)
            .map_err(|errno| Error::kernel(&self.place, "CLOCK_REALTIME", errno))?;
        let age = Duration::from(wall).saturating_sub(stamp);
        self.last = now.saturating_sub(age).max(self.last);
        Ok(self.last)
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The time of CLOCK_MONOTONIC.
///
/// # Panics
/// Never on Linux: the clock always exists.
#[must_use]
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists").into()
}

/// By how much CLOCK_REALTIME is ahead of CLOCK_MONOTONIC. Times of several
/// rings can be compared only by the same number.
///
/// # Panics
/// Never on Linux: the clocks always exist.
pub(crate) fn ahead() -> Duration {
    // Between two looks the thread may have to wait; the best of a few is exact.
    let look = |_| {
        let before = now();
        let wall: Duration = clock_gettime(ClockId::CLOCK_REALTIME).expect("CLOCK_REALTIME exists").into();
        (now().saturating_sub(before), wall.saturating_sub(before))
    };
    (0..5).map(look).min().expect("there are five").1
}

/// The ring in this process, shared with the kernel.
struct Mapping {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
    slot: usize,
}

// SAFETY: the mapping belongs to this value alone, and any thread of the
// process may read it.
#[allow(unsafe_code, reason = "a pointer into memory of its own")]
unsafe impl Send for Mapping {}

impl Mapping {
    #[allow(unsafe_code, reason = "mmap")]
    fn new(socket: &Socket, Shape { slot, blocks }: Shape) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(blocks * BLOCK).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory that anything refers to.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, socket, 0) }?;
        Ok(Self { start: start.cast(), bytes, slot })
    }

    /// How many slots there are.
    fn len(&self) -> usize {
        self.bytes.get() / self.slot
    }

    /// The slot at `index`, if the kernel has filled it.
    #[allow(unsafe_code, reason = "the ring is the kernel's memory")]
    fn full(&self, index: usize) -> Option<Slot<'_>> {
        assert!(index < self.len());
        // SAFETY: the slot lies inside the mapping, which `self` keeps. A slot
        // starts at a multiple of its size from a page, so it is aligned, and it
        // starts with tp_status, which kernel and process access atomically.
        let (start, status) = unsafe {
            let start = self.start.add(index * self.slot);
            (start, start.cast::<AtomicU32>().as_ref())
        };
        let full = status.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0;
        // Lazily: a Slot gives itself back when dropped, and this one may not be ours.
        full.then(|| Slot { start, status, size: self.slot })
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and slots, which borrow it, are gone.
        let result = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}

/// A slot that is ours to read, until it is dropped.
struct Slot<'a> {
    start: NonNull<u8>,
    status: &'a AtomicU32,
    size: usize,
}

#[allow(unsafe_code, reason = "the ring is the kernel's memory")]
impl Slot<'_> {
    fn header(&self) -> tpacket2_hdr {
        // SAFETY: a full slot starts with this header, any bytes are a valid
        // one, and the kernel does not touch a slot that is ours.
        unsafe { ptr::read(self.start.as_ptr().cast()) }
    }

    /// Where the frame was seen, and on its way where: PACKET_HOST, PACKET_OUTGOING...
    fn address(&self) -> sockaddr_ll {
        // SAFETY: as in `header`; the address follows the header at ADDRESS.
        unsafe { ptr::read_unaligned(self.start.as_ptr().add(ADDRESS).cast()) }
    }

    /// The frame; none where it would lie outside of the slot.
    fn frame(&self, header: &tpacket2_hdr) -> Option<&[u8]> {
        let at = usize::from(header.tp_mac);
        let length = usize::try_from(header.tp_snaplen).ok()?;
        if at.checked_add(length)? > self.size {
            return None;
        }
        // SAFETY: the range lies inside the slot, as just checked, and the
        // kernel does not touch a slot that is ours.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), length) })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// The blocks of one ring: many rings must find room in a small machine.
fn share_of_memory(wanted: usize) -> usize {
    let value = |var| sysconf(var).ok().flatten().and_then(|n| usize::try_from(n).ok());
    match (value(SysconfVar::_PHYS_PAGES), value(SysconfVar::PAGE_SIZE)) {
        (Some(pages), Some(size)) => (pages / RINGS * size / BLOCK).clamp(1, wanted),
        _ => wanted,
    }
}

/// A packet socket in `ns` that receives nothing until it is bound, when all
/// else stands.
///
/// # Errors
/// Without CAP_NET_RAW.
pub(super) fn socket(ns: &Namespace, place: &str) -> Result<Socket> {
    let failed = |tried: &'static str| move |source: io::Error| Error::kernel(place, tried, source);
    let socket = ns
        .enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))))
        .map_err(failed("socket(AF_PACKET)"))?;
    socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
    let version: c_int = 1; // TPACKET_V2, linux/if_packet.h
    set(&socket, libc::PACKET_VERSION, &version).map_err(failed("PACKET_VERSION"))?;
    Ok(socket)
}

/// Asks for a ring of this shape, of fewer blocks where there is no memory for
/// its share, and says which it is.
///
/// # Errors
/// Where there is no memory for one block.
pub(super) fn allocate(socket: &Socket, Shape { slot, blocks }: Shape) -> io::Result<Shape> {
    let mut blocks = share_of_memory(blocks);
    loop {
        let request = tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: slot as u32,
            tp_frame_nr: (blocks * (BLOCK / slot)) as u32,
        };
        match set(socket, libc::PACKET_RX_RING, &request) {
            Ok(()) => return Ok(Shape { slot, blocks }),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && blocks > 1 => blocks /= 2,
            Err(error) => return Err(error),
        }
    }
}

/// Has the socket receive every protocol on the interface `index`; on all of
/// them, also those to come, where it is 0.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn bind(socket: &Socket, index: c_int) -> io::Result<()> {
    let mut storage = SockAddrStorage::zeroed();
    #[allow(unsafe_code, reason = "socket2 knows no packet addresses")]
    // SAFETY: sockaddr_ll is a socket address, plain data, and fits.
    let address = unsafe { storage.view_as::<sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    #[allow(unsafe_code, reason = "socket2 knows no packet addresses")]
    // SAFETY: the storage holds a sockaddr_ll of this length.
    let address = unsafe { SockAddr::new(storage, size_of::<sockaddr_ll>() as u32) };
    socket.bind(&address)
}

#[allow(unsafe_code, reason = "options that neither socket2 nor nix knows")]
fn set<T>(socket: &Socket, option: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as u32;
    // SAFETY: the kernel reads `length` bytes of a value that outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "an option that neither socket2 nor nix knows")]
fn statistics(socket: &Socket) -> io::Result<tpacket_stats> {
    let mut statistics = tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<tpacket_stats>() as u32;
    // SAFETY: the kernel writes at most `length` bytes, to plain integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(statistics) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use nix::sys::mman::mmap_anonymous;
    use proptest::prelude::*;

    use super::*;

    /// A ring of one block that no kernel writes to, its first slot as given.
    #[allow(unsafe_code, reason = "mmap")]
    fn ring(first: tpacket2_hdr) -> Mapping {
        let bytes = NonZeroUsize::new(BLOCK).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, of more bytes than the header has, page aligned.
        let start = unsafe {
            let start = mmap_anonymous(None, bytes, access, MapFlags::MAP_PRIVATE).unwrap().cast();
            ptr::write(start.as_ptr(), first);
            start.cast()
        };
        Mapping { start, bytes, slot: WIRE.slot }
    }

    fn header(tp_status: u32, tp_mac: u16, tp_snaplen: u32) -> tpacket2_hdr {
        tpacket2_hdr {
            tp_status,
            tp_len: tp_snaplen,
            tp_snaplen,
            tp_mac,
            tp_net: 0,
            tp_sec: 0,
            tp_nsec: 0,
            tp_vlan_tci: 0,
            tp_vlan_tpid: 0,
            tp_padding: [0; 4],
        }
    }

    #[test]
    fn a_slot_of_the_kernels_is_not_written_to() {
        // The kernel may fill a slot right after it was found empty: to give it
        // back then is to lose a frame, and to wait for that slot for ever.
        let ring = ring(header(libc::TP_STATUS_COPY, 0, 0));
        assert!(ring.full(0).is_none());
        assert_eq!(
            Slot { start: ring.start, status: &AtomicU32::new(0), size: WIRE.slot }.header().tp_status,
            libc::TP_STATUS_COPY
        );
    }

    #[test]
    fn a_slot_that_was_read_is_given_back() {
        let ring = ring(header(libc::TP_STATUS_USER, 80, 60));
        assert_eq!(ring.full(0).unwrap().frame(&header(0, 80, 60)), Some(&[0; 60][..]));
        assert!(ring.full(0).is_none());
        assert!(ring.full(ring.len() - 1).is_none());
    }

    proptest! {
        #[test]
        fn a_frame_lies_inside_of_its_slot(at: u16, length: u32) {
            let ring = ring(header(libc::TP_STATUS_USER, at, length));
            let slot = ring.full(0).unwrap();
            let inside = usize::from(at) as u64 + u64::from(length) <= WIRE.slot as u64;
            prop_assert_eq!(slot.frame(&slot.header()).is_some(), inside);
        }
    }
}
