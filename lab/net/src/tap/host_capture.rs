//! Captures every frame of a namespace.
//!
//! A capture is a packet socket with a ring, in a thread with [its own descriptor
//! table](spawn_with_one_descriptor). The kernel makes the closer of such a socket
//! wait for two RCU grace periods (net/packet/af_packet.c: packet_release,
//! packet_set_ring). When a process with one socket for each of its hosts is
//! killed, these waits must not add up. The ring is mapped only while it is read: a mapping belongs to the
//! whole process, and keeps the socket open. Mapped memory counts as resident, so
//! rings are read one after the other, however many there are.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::Socket;

use crate::namespace::{Namespace, spawn_with_one_descriptor};
use crate::packet::ring::{self, CapturedFrame, Open};
use crate::packet::slots::Shape;
use crate::wire::all as wires;
use faultlab_base::error::{Error, Result};

/// The headers of 1024 frames: 256 KiB.
const SHAPE: Shape = Shape { slot: 256, blocks: 4 };

/// The capture of a namespace, until dropped.
#[derive(Debug)]
pub(crate) struct HostCapture {
    place: String,
    /// Disconnects once the capture runs, or has failed.
    opened: Receiver<()>,
    request: Sender<Duration>,
    answer: Receiver<Result<HostFrames>>,
}

/// The result of a capture.
#[derive(Debug)]
pub(crate) struct HostFrames {
    /// The captured frames, in order.
    pub(crate) frames: Vec<CapturedFrame>,
    /// How many more frames there were that did not fit into the ring.
    pub(crate) lost: u64,
}

impl HostCapture {
    /// Starts a capture on every interface of `ns`, including later ones.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or if no thread can be created.
    pub(crate) fn begin(ns: &Namespace) -> Result<Self> {
        let place = format!("capture in {}", ns.name());
        let socket = ring::socket(ns, &place)?;
        let (tell_opened, opened) = channel();
        let (request, requested) = channel();
        let (tell, answer) = channel();
        let at = place.clone();
        let live = move |socket| {
            let filled = fill(&at, Socket::from(socket));
            drop(tell_opened);
            let Ok(wall_offset) = requested.recv() else { return };
            let _ = match filled.and_then(|(socket, shape)| read(at, socket, shape, wall_offset)) {
                // The socket is closed after the result was sent: nobody waits for that.
                Ok((frames, _socket)) => tell.send(Ok(frames)),
                Err(error) => tell.send(Err(error)),
            };
        };
        spawn_with_one_descriptor(socket.into(), live)
            .map_err(|e| Error::kernel(&place, "start a thread", e))?;
        Ok(Self { place, opened, request, answer })
    }

    /// Waits until the capture runs, or has failed, which `end` reports.
    pub(crate) fn ready(&self) {
        let _ = self.opened.recv();
    }

    /// Makes the thread read its ring, when no other ring is being read. Until
    /// then the kernel goes on filling it. `wall_offset` is the [offset of the wall
    /// clock](crate::packet::clock::wall_offset).
    pub(crate) fn start_reading(&self, wall_offset: Duration) {
        // A thread that has ended has sent its result, or never will.
        let _ = self.request.send(wall_offset);
    }

    /// The frames in the ring when it was read, which is after `start_reading`.
    ///
    /// # Errors
    /// If there was no memory for a ring, or it cannot be read.
    pub(crate) fn end(self) -> Result<HostFrames> {
        loop {
            match self.answer.recv_timeout(Duration::from_millis(1)) {
                Ok(frames) => return frames,
                Err(RecvTimeoutError::Timeout) => wires::carry(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Lab(format!("{}: its thread has ended", self.place)));
                }
            }
        }
    }
}

/// Makes the kernel fill a ring, and returns the ring's shape.
fn fill(place: &str, socket: Socket) -> Result<(Socket, Shape)> {
    let failed = |tried: &'static str| move |source: io::Error| Error::kernel(place, tried, source);
    let shape = ring::allocate(&socket, SHAPE).map_err(failed("PACKET_RX_RING"))?;
    ring::bind(&socket, 0).map_err(failed("bind"))?;
    Ok((socket, shape))
}

/// Reads a ring while no other is mapped.
fn read(place: String, socket: Socket, shape: Shape, wall_offset: Duration) -> Result<(HostFrames, Socket)> {
    static ONE: Mutex<()> = Mutex::new(());
    // The mutex guards no state that a panic could leave inconsistent.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ring = Open::over(place, socket, shape)?;
    let frames = std::iter::from_fn(|| ring.next_captured(wall_offset)).collect();
    let lost = ring.lost()?;
    // Keep the socket open: closing it here would wait for a grace period.
    Ok((HostFrames { frames, lost }, ring.unmap()))
}
