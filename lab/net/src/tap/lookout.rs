//! What looks on at every frame of a namespace.
//!
//! It is a packet socket with a ring, in a thread that [nothing else is
//! in](apart): the kernel has who closes it wait for RCU grace periods, twice
//! (net/packet/af_packet.c: packet_release, packet_set_ring), and a process that
//! is killed with one for each of its hosts must not wait for one after the
//! other. The ring is mapped only to be read. A mapping is the process's own,
//! and holds the socket. What is mapped counts as resident, so that rings are
//! read one after the other, however many there are.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::Socket;

use crate::namespace::{Namespace, apart};
use crate::packet::ring::{self, Open, Seen};
use crate::packet::slots::Shape;
use crate::wire::all as wires;
use faultlab_base::error::{Error, Result};

/// Headers, of 1024 frames: 256 KiB.
const SHAPE: Shape = Shape { slot: 256, blocks: 4 };

/// What looks on at a namespace, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lookout {
    place: String,
    /// Ends when it looks on, or cannot.
    opened: Receiver<()>,
    ask: Sender<Duration>,
    answer: Receiver<Result<Looked>>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The frames, in the order in which they were seen.
    pub(crate) frames: Vec<Seen>,
    /// How many more there were, for which the ring had no room.
    pub(crate) lost: u64,
}

impl Lookout {
    /// Begins to look on at every interface of `ns`, also at those to come.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, and where no thread is to be had.
    pub(crate) fn begin(ns: &Namespace) -> Result<Self> {
        let place = format!("capture in {}", ns.name());
        let socket = ring::socket(ns, &place)?;
        let (tell_opened, opened) = channel();
        let (ask, asked) = channel();
        let (tell, answer) = channel();
        let at = place.clone();
        let live = move |socket| {
            let filled = fill(&at, Socket::from(socket));
            drop(tell_opened);
            let Ok(ahead) = asked.recv() else { return };
            let _ = match filled.and_then(|(socket, shape)| read(at, socket, shape, ahead)) {
                // Closed after it has told: nobody waits for that.
                Ok((looked, _socket)) => tell.send(Ok(looked)),
                Err(error) => tell.send(Err(error)),
            };
        };
        apart(socket.into(), live).map_err(|e| Error::kernel(&place, "start a thread", e))?;
        Ok(Self { place, opened, ask, answer })
    }

    /// Waits until it looks on, or cannot, which its end tells.
    pub(crate) fn ready(&self) {
        let _ = self.opened.recv();
    }

    /// Has it read what it has seen. The wall's clock is [ahead](crate::packet::clock::ahead) by
    /// so much.
    pub(crate) fn stop(&self, ahead: Duration) {
        // A thread that has ended has answered, or never will.
        let _ = self.ask.send(ahead);
    }

    /// What was seen until it was to stop.
    ///
    /// # Errors
    /// Where there was no memory for a ring, or none can be read.
    pub(crate) fn end(self) -> Result<Looked> {
        loop {
            match self.answer.recv_timeout(Duration::from_millis(1)) {
                Ok(looked) => return looked,
                Err(RecvTimeoutError::Timeout) => wires::carry(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Lab(format!("{}: its thread has ended", self.place)));
                }
            }
        }
    }
}

/// Has the kernel fill a ring, and says which.
fn fill(place: &str, socket: Socket) -> Result<(Socket, Shape)> {
    let failed = |tried: &'static str| move |source: io::Error| Error::kernel(place, tried, source);
    let shape = ring::allocate(&socket, SHAPE).map_err(failed("PACKET_RX_RING"))?;
    ring::bind(&socket, 0).map_err(failed("bind"))?;
    Ok((socket, shape))
}

/// Reads a ring that no other is mapped beside.
fn read(place: String, socket: Socket, shape: Shape, ahead: Duration) -> Result<(Looked, Socket)> {
    static ONE: Mutex<()> = Mutex::new(());
    // Nothing that a panic could leave half done is behind it.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ring = Open::over(place, socket, shape)?;
    let frames = std::iter::from_fn(|| ring.look(ahead)).collect();
    let lost = ring.lost()?;
    // The socket stays open: to close it here would be to wait for a grace period.
    Ok((Looked { frames, lost }, ring.unmap()))
}
