//! The slots of a packet socket's receive ring, in memory shared with the kernel.
//!
//! - Documentation/networking/packet_mmap.rst, TPACKET_V2
//! - net/packet/af_packet.c, tpacket_rcv(): what the kernel writes into a slot

use std::io;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{sockaddr_ll, tpacket2_hdr};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use socket2::Socket;

/// Bytes in a block, the kernel's unit of allocation.
pub(super) const BLOCK: usize = 1 << 16;

/// The size of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes in a slot: the kernel's headers, about 80 bytes, and a frame. A
    /// power of two, so that slots fill a block.
    pub(crate) slot: usize,
    /// The maximum number of blocks of [`BLOCK`] bytes.
    pub(crate) blocks: usize,
}

/// 2048 whole frames: 4 MiB. Larger rings take seconds to allocate on a busy
/// machine when all arms of a scenario request theirs.
pub(super) const WIRE: Shape = Shape { slot: 2048, blocks: 64 };

/// The offset of a frame's address in its slot, TPACKET_ALIGN(sizeof(struct
/// tpacket2_hdr)).
const ADDRESS: usize = size_of::<tpacket2_hdr>().next_multiple_of(16);

/// The ring as mapped into this process, shared with the kernel.
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
    slot: usize,
}

// SAFETY: only this value owns the mapping, and any thread of the process may
// read it.
#[allow(unsafe_code, reason = "a pointer into memory of its own")]
unsafe impl Send for Mapping {}

impl Mapping {
    #[allow(unsafe_code, reason = "mmap")]
    pub(super) fn new(socket: &Socket, Shape { slot, blocks }: Shape) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(blocks * BLOCK).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no
        // memory in use.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, socket, 0) }?;
        Ok(Self { start: start.cast(), bytes, slot })
    }

    /// The number of slots.
    pub(super) fn len(&self) -> usize {
        self.bytes.get() / self.slot
    }

    /// The slot at `index`, if the kernel has filled it.
    #[allow(unsafe_code, reason = "the ring is the kernel's memory")]
    pub(super) fn full(&self, index: usize) -> Option<Slot<'_>> {
        assert!(index < self.len());
        // SAFETY: the slot lies inside the mapping, which `self` keeps. A slot
        // starts at a multiple of its size from a page, so it is aligned, and it
        // starts with tp_status, which kernel and process access atomically.
        let (start, status) = unsafe {
            let start = self.start.add(index * self.slot);
            (start, start.cast::<AtomicU32>().as_ref())
        };
        let full = status.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0;
        // Lazily: a Slot is returned to the kernel when dropped, and this one may
        // still be the kernel's.
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

/// A slot that this process owns until dropped.
pub(super) struct Slot<'a> {
    start: NonNull<u8>,
    status: &'a AtomicU32,
    size: usize,
}

#[allow(unsafe_code, reason = "the ring is the kernel's memory")]
impl Slot<'_> {
    pub(super) fn header(&self) -> tpacket2_hdr {
        // SAFETY: a full slot starts with this header, any bytes are a valid
        // one, and the kernel does not touch a slot that is ours.
        unsafe { ptr::read(self.start.as_ptr().cast()) }
    }

    /// The interface of the frame, and its packet type: PACKET_HOST,
    /// PACKET_OUTGOING...
    pub(super) fn address(&self) -> sockaddr_ll {
        // SAFETY: as in `header`; the address follows the header at ADDRESS.
        unsafe { ptr::read_unaligned(self.start.as_ptr().add(ADDRESS).cast()) }
    }

    /// The frame; `None` if it would lie outside the slot.
    pub(super) fn frame(&self, header: &tpacket2_hdr) -> Option<&[u8]> {
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

#[cfg(test)]
mod tests {
    use nix::sys::mman::mmap_anonymous;
    use proptest::prelude::*;

    use super::*;

    /// A ring of one block that no kernel writes to, with the given first slot.
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
        // The kernel may fill a slot right after it was found empty. To return
        // the slot then loses a frame, and the reader waits for that slot for
        // ever.
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
