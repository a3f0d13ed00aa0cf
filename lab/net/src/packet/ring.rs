//! A packet socket with the kernel's receive ring.
//!
//! The ring absorbs bursts that a socket buffer of net.core.rmem_max would drop,
//! and frames are read from it without a system call.
//!
//! - packet(7); Documentation/networking/packet_mmap.rst, TPACKET_V2
//! - net/packet/af_packet.c, tpacket_rcv(): what the kernel writes into a slot

#![allow(clippy::cast_possible_truncation, reason = "C gives the kernel's small constants wide types")]

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use std::{fmt, io};
use std::{ptr, thread};

use libc::{c_int, tpacket_req, tpacket_stats};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use socket2::{Domain, Protocol, Socket, Type};

use super::address;
pub use super::clock::now;
use super::slots::{BLOCK, Mapping, Shape, WIRE};
use crate::namespace::Namespace;
use crate::netlink;
use faultlab_base::error::{Error, Result};

/// A ring may take 1/512 of the machine's memory. All concurrent scenarios together
/// request at most half as many rings.
const RINGS: usize = 512;
/// The shortest time between two attempts on a full device queue.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// A frame as it arrived.
pub(crate) struct Arrival {
    /// When the kernel received it, on CLOCK_MONOTONIC.
    pub(crate) at: Duration,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
}

/// A captured frame.
#[derive(Debug)]
pub(crate) struct CapturedFrame {
    /// When, on CLOCK_MONOTONIC.
    pub(crate) at: Duration,
    /// The index of the interface.
    pub(crate) interface: u32,
    /// Whether it was outgoing.
    pub(crate) outgoing: bool,
    /// Its length.
    pub(crate) length: u32,
    /// Its bytes, up to the size of a slot.
    pub(crate) bytes: Vec<u8>,
}

/// The result of sending a frame.
pub(crate) enum Sent {
    /// The kernel accepted it.
    Done,
    /// The socket's buffer is full: wait until it is writable.
    Full,
    /// The device's queue is full: try again after [`RETRY`].
    Queue,
    /// The interface is down or deleted.
    Gone,
}

/// A packet socket with a ring, bound to an interface.
///
/// Whenever a ring is set up or closed, the kernel makes the caller wait for RCU
/// grace periods (net/packet/af_packet.c, synchronize_net), on a busy machine
/// 100 ms each. So rings are opened [in parallel](open_all), and closed in
/// threads that nobody waits for.
pub(crate) struct Ring(Option<Open>);

/// A ring, until it is closed.
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
    /// Without CAP_NET_RAW; if there is no such interface, or it is down.
    pub(crate) fn open(wire: &str, ns: &Namespace, ifname: &str) -> Result<Self> {
        let place = format!("wire {wire}, {} in {}", ifname, ns.name());
        let failed = |tried: &'static str| {
            let place = place.clone();
            move |source: io::Error| Error::kernel(place, tried, source)
        };
        let index = ns
            .enter(|| netlink::index_of(ifname))
            .map_err(|errno| Error::kernel(&place, "if_nametoindex", errno))?;
        let index = c_int::try_from(index).map_err(|_| Error::Lab(format!("{place}: index {index}")))?;
        let socket = socket(ns, &place)?;
        let shape = allocate(&socket, WIRE).map_err(failed("PACKET_RX_RING"))?;
        let ring = Open::over(place.clone(), socket, shape)?;
        // Linux 4.20; on older kernels only `next` filters the kernel's own
        // frames out.
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
        // af_packet.c, packet_do_bind(): an interface that is down leaves
        // ENETDOWN behind.
        if let Some(error) = ring.socket.take_error().map_err(failed("SO_ERROR"))? {
            return Err(failed("bind")(error));
        }
        Ok(Self(Some(ring)))
    }
}

/// Opens many rings in the time that one takes.
///
/// # Errors
/// The first error of `open`; or if no thread can be created (EAGAIN), or no
/// descriptor is left (EMFILE).
pub(crate) fn open_all<T: Send>(
    places: impl IntoIterator<Item = T>,
    open: impl Fn(T) -> Result<Ring> + Sync,
) -> Result<Vec<Ring>> {
    thread::scope(|scope| {
        let open = &open;
        let start = |place| {
            let body = move || Namespace::remember().and_then(|()| open(place));
            let thread = thread::Builder::new().spawn_scoped(scope, body);
            thread.map_err(|e| Error::kernel("capture", "start a thread", e))
        };
        let threads: Vec<_> = places.into_iter().map(start).collect::<Result<_>>()?;
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
        // If no thread can be created, close it here.
        let _ = thread::Builder::new().spawn(move || drop(open));
    }
}

impl Open {
    /// Maps the ring of a socket.
    ///
    /// # Errors
    /// If there is no memory for it (ENOMEM).
    pub(crate) fn over(place: String, socket: Socket, shape: Shape) -> Result<Self> {
        let slots = Mapping::new(&socket, shape).map_err(|e| Error::kernel(&place, "mmap", e))?;
        Ok(Self { place, socket, slots, next: 0, last: Duration::ZERO, lost: 0 })
    }

    /// Unmaps the ring, which the kernel continues to fill.
    pub(crate) fn unmap(self) -> Socket {
        self.socket
    }

    /// The interface, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Whether a frame is ready.
    pub(crate) fn has_more(&self) -> bool {
        // Look, but do not take: a Slot is returned to the kernel when dropped.
        self.slots.full(self.next).map(std::mem::forget).is_some()
    }

    /// The next frame that arrived, if there is one.
    ///
    /// # Errors
    /// A frame that this wire cannot carry as it is: longer than a slot, with a
    /// VLAN tag, or with a checksum left to an offload.
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

    /// The next captured frame of any kind, if there is one. `wall_offset` is
    /// the [offset of the wall clock](super::clock::wall_offset).
    pub(crate) fn next_captured(&mut self, wall_offset: Duration) -> Option<CapturedFrame> {
        let slot = self.slots.full(self.next)?;
        self.next = (self.next + 1) % self.slots.len();
        let (header, address) = (slot.header(), slot.address());
        let bytes = slot.frame(&header).unwrap_or_default().to_vec();
        drop(slot);
        let stamp = Duration::new(header.tp_sec.into(), header.tp_nsec);
        self.last = stamp.saturating_sub(wall_offset).max(self.last);
        Some(CapturedFrame {
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
    /// The kernel's error, except for those that [`Sent`] covers.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<Sent> {
        let Err(error) = self.socket.send(frame) else { return Ok(Sent::Done) };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Sent::Full),
            Some(libc::ENOBUFS) => Ok(Sent::Queue),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Ok(Sent::Gone),
            _ => Err(Error::kernel(&self.place, format!("send {} bytes", frame.len()), error)),
        }
    }

    /// How many frames so far the kernel could not put into the ring.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(crate) fn lost(&mut self) -> Result<u64> {
        let statistics =
            statistics(&self.socket).map_err(|e| Error::kernel(&self.place, "PACKET_STATISTICS", e))?;
        self.lost += u64::from(statistics.tp_drops); // reading sets it to zero
        Ok(self.lost)
    }

    /// Converts a receive timestamp from CLOCK_REALTIME to CLOCK_MONOTONIC.
    ///
    /// The wall clock may be set between receipt and reading, so the result is
    /// clamped: never in the future, never before the previous frame.
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

/// How many blocks one ring gets: many rings must fit into a small machine.
fn share_of_memory(wanted: usize) -> usize {
    let value = |var| sysconf(var).ok().flatten().and_then(|n| usize::try_from(n).ok());
    match (value(SysconfVar::_PHYS_PAGES), value(SysconfVar::PAGE_SIZE)) {
        (Some(pages), Some(size)) => (pages / RINGS * size / BLOCK).clamp(1, wanted),
        _ => wanted,
    }
}

/// A packet socket in `ns` that receives nothing until it is bound, once
/// everything else is set up.
///
/// # Errors
/// Without CAP_NET_RAW.
pub(crate) fn socket(ns: &Namespace, place: &str) -> Result<Socket> {
    let failed = |tried: &'static str| move |source: io::Error| Error::kernel(place, tried, source);
    let socket = ns
        .enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))))
        .map_err(failed("socket(AF_PACKET)"))?;
    socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
    let version: c_int = 1; // TPACKET_V2, linux/if_packet.h
    set(&socket, libc::PACKET_VERSION, &version).map_err(failed("PACKET_VERSION"))?;
    Ok(socket)
}

/// Requests a ring of this shape, with fewer blocks if there is not enough memory
/// for its share, and returns the actual shape.
///
/// # Errors
/// If there is no memory for a single block.
pub(crate) fn allocate(socket: &Socket, Shape { slot, blocks }: Shape) -> io::Result<Shape> {
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

/// Makes the socket receive all protocols on the interface `index`; on all
/// interfaces, including later ones, if it is 0.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn bind(socket: &Socket, index: c_int) -> io::Result<()> {
    socket.bind(&address::every_protocol(index))
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
    // SAFETY: the kernel writes at most `length` bytes, all of plain integers.
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
