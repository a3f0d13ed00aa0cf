//! The MTU of a path, as a host's kernel knows it.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt::IpMtu};

use faultlab_base::error::{Error, Result};
use faultlab_net::network::Host;
use faultlab_net::topology::Family;

/// Nothing listens on this port, and nothing is sent to it.
const PORT: u16 = 9;

/// A UDP socket that asks the kernel for the MTU of paths, and sends nothing.
#[derive(Debug)]
pub struct PathMtu(UdpSocket);

impl PathMtu {
    /// Opens the socket on a host.
    ///
    /// # Errors
    /// If no socket can be created.
    pub fn new(at: &Host) -> Result<Self> {
        let bind = || UdpSocket::bind((at.address(), 0));
        at.namespace().enter(bind).map(Self).map_err(|e| Error::kernel(at.name(), "udp socket", e))
    }

    /// The MTU of the path to a destination.
    ///
    /// # Errors
    /// The kernel's error for connect().
    pub fn to(&self, destination: IpAddr) -> Result<i32> {
        let failed = |e: io::Error| Error::kernel(destination.to_string(), "ask for the path MTU", e);
        self.0.connect((destination, PORT)).map_err(failed)?;
        let socket = self.0.as_fd();
        match Family::of(destination) {
            Family::V4 => getsockopt(&socket, IpMtu).map_err(|e| failed(e.into())),
            Family::V6 => ipv6_mtu(socket).map_err(failed),
        }
    }
}

impl AsFd for PathMtu {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The IPV6_MTU option of ipv6(7), which nix lacks.
fn ipv6_mtu(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut mtu: libc::c_int = 0;
    let mut length: libc::socklen_t = 4;
    let (value, length) = ((&raw mut mtu).cast(), &raw mut length);
    // SAFETY: the socket is open, and the option is an int of four bytes.
    #[allow(unsafe_code, reason = "a socket option that nix does not have")]
    let answer =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU, value, length) };
    if answer == 0 { Ok(mtu) } else { Err(io::Error::last_os_error()) }
}
