//! A packet socket with the kernel's receive ring.
//!
//! The ring takes bursts that a socket buffer of net.core.rmem_max would lose,
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

/// How many rings would fill the memory of the machine: twice as many as all
/// scenarios that run side by side may ask for.
const RINGS: usize = 512;
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
            .enter(|| netlink::index_of(ifname))
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
    pub(crate) fn over(place: String, socket: Socket, shape: Shape) -> Result<Self> {
        let slots = Mapping::new(&socket, shape).map_err(|e| Error::kernel(&place, "mmap", e))?;
        Ok(Self { place, socket, slots, next: 0, last: Duration::ZERO, lost: 0 })
    }

    /// Unmaps the ring, which the kernel still fills.
    pub(crate) fn unmap(self) -> Socket {
        self.socket
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
    pub(crate) fn look(&mut self, ahead: Duration) -> Option<Seen> {
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

/// Asks for a ring of this shape, of fewer blocks where there is no memory for
/// its share, and says which it is.
///
/// # Errors
/// Where there is no memory for one block.
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

/// Has the socket receive every protocol on the interface `index`; on all of
/// them, also those to come, where it is 0.
///
/// # Errors
/// What the kernel refuses.
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
