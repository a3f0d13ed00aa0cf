//! A reference to a network device, held as a real program would hold it: by a packet
//! socket that sleeps in sendto().
//!
//! net/packet/af_packet.c: packet_snd looks up the device and takes a reference,
//! sleeps in sock_alloc_send_pskb until the socket's send buffer has room, then sends
//! and drops the reference. The buffer never gets room: it is full of frames that
//! wait in a token bucket on another device. The socket is bound to no device,
//! because NETDEV_DOWN would wake it. The sleep is interruptible, so a signal ends
//! it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Child;
use faultlab_base::error::{Error, Result};
use faultlab_net::network::{Host, qdisc};
use faultlab_net::packet::link_layer;

/// How soon the process must be asleep.
const ASLEEP: Duration = Duration::from_secs(5);
/// How long a frame that is not queued may be in flight. Once it has been freed, the
/// send buffer has room again.
const UNDER_WAY: Duration = Duration::from_millis(10);
/// A frame that gets no answer: a broadcast with the experimental EtherType.
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

/// A process that sleeps in sendto() with a reference to a device.
#[derive(Debug)]
#[must_use = "a holder that is dropped lets go"]
pub struct DeviceHolder(Child);

impl DeviceHolder {
    /// Holds `device` of a host. The queue of `sink`, another device of the host,
    /// keeps the frames that fill the socket's send buffer.
    ///
    /// # Errors
    /// If the kernel has no token bucket or no packet sockets, or the process does
    /// not fall asleep.
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
        let mut full = 0;
        while full < 2 {
            match socket.send_to(&FRAME, &to_sink) {
                Ok(_) => full = 0,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    full += 1;
                    tokio::time::sleep(UNDER_WAY).await;
                }
                Err(e) => return Err(failed("sendto the sink", e)),
            }
        }
        socket.set_nonblocking(false).map_err(|e| failed("O_NONBLOCK", e))?;
        let (fd, to_device) = (socket.as_raw_fd(), link_layer(at.interface(device).index));
        // The kernel keeps 15 characters of a name.
        let name: String = format!("hold {device}").chars().take(15).collect();
        let name = CString::new(name).map_err(|e| failed("name a process", e.into()))?;
        // SAFETY: `sleep_in_sendto` only makes system calls.
        #[allow(unsafe_code, reason = "see SAFETY")]
        let child = unsafe { Child::begin(&name, move || sleep_in_sendto(fd, &to_device)) };
        let child = child.map_err(|e| failed("fork", e))?;
        child.wanted_at(at, format!("a frame to {device}"));
        let holder = Self(child);
        holder.asleep(at.name()).await?;
        Ok(holder)
    }

    /// Kills the process, as dropping it does.
    pub fn end(self) {
        drop(self);
    }

    /// Waits until the process sleeps (state S) in sendto(), and not on a lock on the
    /// way there.
    async fn asleep(&self, place: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < ASLEEP {
            let place = self.0.place().unwrap_or_default();
            let read = |file| fs::read_to_string(place.join(file)).unwrap_or_default();
            // proc(5), /proc/PID/syscall: the number of the system call comes first.
            let in_sendto = read("syscall").starts_with(&format!("{} ", libc::SYS_sendto));
            if in_sendto && read("stat").contains(") S ") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(Error::Deadline {
            place: place.into(),
            condition: format!(
                "a process to sleep in sendto(); it is in state {} in {}",
                self.0.life(),
                self.0.sleeps_in().unwrap_or_default()
            ),
            waited: ASLEEP,
        })
    }
}

impl Drop for DeviceHolder {
    /// Kills the process and waits up to 5 s for its end. The reference is gone when it
    /// has ended.
    fn drop(&mut self) {
        let begun = Instant::now();
        self.0.kill();
        while self.0.reap().is_none() && begun.elapsed() < ASLEEP {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends a frame, with all descriptors but the socket closed. Returns an errno or 0,
/// if it returns. Runs in a forked child.
fn sleep_in_sendto(socket: RawFd, to: &SockAddr) -> i32 {
    const ONLY: RawFd = 3;
    // SAFETY: system calls on descriptors of a process without other threads; frame
    // and address outlive them.
    #[allow(unsafe_code, reason = "see SAFETY")]
    unsafe {
        // Open descriptors would live as long as this process, and so would their
        // namespaces.
        if libc::dup2(socket, ONLY) < 0 {
            return Errno::last_raw();
        }
        if libc::syscall(libc::SYS_close_range, ONLY + 1, libc::c_uint::MAX, 0) != 0 {
            // Before 5.9.
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            let all = RawFd::try_from(limit.rlim_cur).unwrap_or(1 << 20);
            for fd in ONLY + 1..all {
                libc::close(fd);
            }
        }
        let sent = libc::sendto(ONLY, FRAME.as_ptr().cast(), FRAME.len(), 0, to.as_ptr().cast(), to.len());
        if sent < 0 { Errno::last_raw() } else { 0 }
    }
}
