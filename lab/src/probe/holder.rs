//! A reference to a network device, held as a real program holds one: by a
//! packet socket that sleeps in sendto().
//!
//! net/packet/af_packet.c: packet_snd looks the device up (a reference is
//! taken), then sleeps in sock_alloc_send_pskb until the socket's send buffer
//! has room, then sends and lets go. The room never comes: the buffer is full
//! of frames that wait in a token bucket of another device. The socket is bound
//! to no device, or NETDEV_DOWN would wake it. The sleep is interruptible, so a
//! signal ends the hold, and so does the death of the process.

use std::fs::DirEntry;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::thread::JoinHandleExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::error::{Error, Result};
use crate::network::pending::Wanted;
use crate::network::{Host, qdisc};
use crate::task::Task;

/// How soon the sleep must begin.
const ASLEEP: Duration = Duration::from_secs(5);
/// A frame that nobody answers: a broadcast of the experimental EtherType.
const FRAME: [u8; 1400] = {
    let mut frame = [0; 1400];
    let mut n = 0;
    while n < 6 {
        frame[n] = 0xff;
        n += 1;
    }
    frame[6] = 2;
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame
};

/// A thread that sleeps in sendto() with a reference to a device.
#[derive(Debug)]
#[must_use = "a holder that is dropped lets go"]
pub struct Holder {
    thread: Option<JoinHandle<()>>,
    woken: Arc<AtomicBool>,
    _wanted: Rc<Wanted>,
}

extern "C" fn nothing(_: libc::c_int) {}

impl Holder {
    /// Holds `device` of a host; `sink` is another device of it, whose queue
    /// keeps the frames that fill the socket's send buffer.
    ///
    /// # Errors
    /// Where the kernel has no token bucket or no packet sockets, or the sleep
    /// does not begin.
    pub async fn hold(at: &Host, device: &str, sink: &str) -> Result<Self> {
        let failed = |tried: &str, e: io::Error| Error::kernel(at.name(), tried, e);
        // One byte a second: what is queued stays queued.
        qdisc::token_bucket(at.namespace(), sink, 1, 2000, 1 << 20)?;
        let socket = at
            .namespace()
            .enter(|| Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(Protocol::from(0))))
            .map_err(|e| failed("packet socket", e))?;
        // The kernel raises it to SOCK_MIN_SNDBUF.
        socket.set_send_buffer_size(1).map_err(|e| failed("SO_SNDBUF", e))?;
        socket.set_nonblocking(true).map_err(|e| failed("O_NONBLOCK", e))?;
        let to_sink = link_layer(at.interface(sink).index);
        loop {
            match socket.send_to(&FRAME, &to_sink) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(failed("sendto the sink", e)),
            }
        }
        socket.set_nonblocking(false).map_err(|e| failed("O_NONBLOCK", e))?;
        wake_by_signal().map_err(|e| failed("sigaction", e.into()))?;

        let woken = Arc::new(AtomicBool::new(false));
        let to_device = link_layer(at.interface(device).index);
        let (socket, thread_woken) = (OwnedFd::from(socket), Arc::clone(&woken));
        // The kernel keeps 15 characters of a thread's name.
        let wanted = at.wants(format!("a frame to {device}"));
        let task = Arc::clone(&wanted.task);
        let name: String = format!("hold {device}").chars().take(15).collect();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                Task::place_of_this().map(|place| task.set(place));
                // A signal for the process, such as the SIGCHLD of a child that
                // ends while the main thread is in fork(), would restart
                // sendto() here, and the device would be looked up anew.
                let mut others = SigSet::all();
                others.remove(Signal::SIGUSR1);
                let _ = others.thread_set_mask();
                let socket = Socket::from(socket);
                while !thread_woken.load(Ordering::Relaxed) {
                    if !matches!(socket.send_to(&FRAME, &to_device), Err(e) if e.kind() == io::ErrorKind::Interrupted) {
                        break;
                    }
                }
            })
            .map_err(|e| failed("start a thread", e))?;
        let holder = Self { thread: Some(thread), woken, _wanted: wanted };
        asleep(at.name(), &name).await?;
        Ok(holder)
    }

    /// Ends the hold as a signal to the program would.
    pub fn end(mut self) {
        self.wake();
    }

    fn wake(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.woken.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        // A signal that comes between two sleeps wakes nothing: send it until
        // the thread is gone.
        while !thread.is_finished() && begun.elapsed() < ASLEEP {
            let _ = pthread_kill(thread.as_pthread_t(), Signal::SIGUSR1);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Makes SIGUSR1 interrupt a sleep and do nothing else.
fn wake_by_signal() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is safe in any thread at any time.
    #[allow(unsafe_code, reason = "sigaction is unsafe for handlers that do something")]
    unsafe {
        sigaction(Signal::SIGUSR1, &action).map(|_| ())
    }
}

/// Waits until the thread of that name sleeps (state S) in sendto(), and not in
/// a lock on its way there.
async fn asleep(place: &str, name: &str) -> Result<()> {
    let begun = Instant::now();
    let sleeping = format!("({name}) S ");
    while begun.elapsed() < ASLEEP {
        // By name and not by id: ids differ between pid namespaces.
        let tasks =
            std::fs::read_dir("/proc/self/task").map_err(|e| Error::kernel(place, "list threads", e))?;
        let read =
            |task: &DirEntry, file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        // proc(5), /proc/PID/syscall: the number of the system call comes first.
        let in_sendto = |syscall: &str| syscall.starts_with(&format!("{} ", libc::SYS_sendto));
        if tasks
            .flatten()
            .any(|task| read(&task, "stat").contains(&sleeping) && in_sendto(&read(&task, "syscall")))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(Error::Deadline {
        place: place.into(),
        condition: "a packet socket to sleep in sendto()".into(),
        waited: ASLEEP,
    })
}

/// Where a packet socket sends: to this interface, whatever the frame says.
pub(super) fn link_layer(index: u32) -> SockAddr {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("17"),
        sll_protocol: 0x88b5_u16.to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into sockaddr_storage and is plain data.
    #[allow(unsafe_code, reason = "socket2 has no constructor for sockaddr_ll")]
    unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = address;
        SockAddr::new(storage, libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20"))
    }
}
