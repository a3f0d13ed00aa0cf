//! The loopback interface of this network namespace.
//!
//! Reading: netdevice(7), SIOCSIFFLAGS.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{self, ifreq};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use faultlab_base::error::{Error, Result};

/// Sets the interface `lo` up.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_up() -> Result<()> {
    let failed = |e: Errno| Error::kernel("lo", "set it up", e);
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let mut request = ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(libc::IFF_UP).expect("a small number"),
        },
    };
    for (to, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = byte.cast_signed();
    }
    // SAFETY: the descriptor is open, and SIOCSIFFLAGS reads a struct ifreq.
    #[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(result).map(drop).map_err(failed)
}

/// Connects once to a closed port, before the command runs. The first connect() after
/// a boot fills a table with random numbers (net/ipv4/inet_hashtables.c:
/// table_perturb), which takes 50 ms of a guest's time.
pub(super) fn connect_once() {
    let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, 1));
}
