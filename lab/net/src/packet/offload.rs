//! Offloads of an interface.
//!
//! A frame that a process takes off a wire must be one that a cable could carry:
//! with its full checksum, and no longer than the MTU. With offloads on, the
//! kernel leaves both to hardware that a veth does not have.
//!
//! - ethtool(8) -K; linux/ethtool.h; net/ethtool/ioctl.c, ethtool_set_one_feature()

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;
use faultlab_base::error::{Error, Result};

/// linux/ethtool.h.
const ETHTOOL_SGRO: u32 = 0x2c;

/// What to switch off, in this order: commands of linux/ethtool.h.
const OFFLOADS: [(&str, u32); 5] = [
    ("ETHTOOL_STSO", 0x1f),
    ("ETHTOOL_SGSO", 0x24),
    ("ETHTOOL_SGRO", ETHTOOL_SGRO),
    ("ETHTOOL_SSG", 0x19),
    ("ETHTOOL_STXCSUM", 0x17),
];

/// struct ethtool_value of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

#[allow(unsafe_code, reason = "the macro makes an unsafe function")]
mod ioctl {
    nix::ioctl_readwrite_bad!(
        /// SIOCETHTOOL of linux/sockios.h.
        siocethtool,
        0x8946,
        libc::ifreq
    );
}

/// Switches off the segmentation, aggregation, scatter-gather and transmit
/// checksum offloads of the interface `ifname` in `ns`. An offload that the
/// interface does not have is off already.
///
/// # Errors
/// Without such an interface, or without CAP_NET_ADMIN over its namespace.
pub fn switch_off(ns: &Namespace, ifname: &str) -> Result<()> {
    let place = || format!("{ifname} in {}", ns.name());
    let socket = ns
        .enter(|| Socket::new(Domain::IPV4, Type::DGRAM, None))
        .map_err(|e| Error::kernel(place(), "socket(AF_INET)", e))?;
    for (name, cmd) in OFFLOADS {
        match set(&socket, ifname, cmd, 0) {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => {
                return Err(Error::kernel(place(), format!("SIOCETHTOOL {name} 0"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Switches on generic receive offload of the interface `ifname` in `ns`. A veth then
/// receives as a network card does, since Linux 5.13 (d3256efd8e8b): frames wait for
/// its NAPI poll, and all that one poll finds pass each netfilter hook together, before
/// the first of them goes on to the next (net/ipv4/ip_input.c: ip_sublist_rcv). The
/// offloads of its peer must be [off](switch_off): a veth takes what a peer with TSO
/// sends to be aggregated already (veth_skb_is_eligible_for_gro). Before 5.13 it
/// changes nothing.
///
/// # Errors
/// Without such an interface, or without CAP_NET_ADMIN over its namespace.
pub fn receive_in_batches(ns: &Namespace, ifname: &str) -> Result<()> {
    let failed = |tried: &str, e: io::Error| Error::kernel(format!("{ifname} in {}", ns.name()), tried, e);
    let socket = ns
        .enter(|| Socket::new(Domain::IPV4, Type::DGRAM, None))
        .map_err(|e| failed("socket(AF_INET)", e))?;
    set(&socket, ifname, ETHTOOL_SGRO, 1).map_err(|e| failed("SIOCETHTOOL ETHTOOL_SGRO 1", e))
}

#[allow(unsafe_code, reason = "ethtool's ioctl takes a pointer inside of a union")]
fn set(socket: &Socket, ifname: &str, cmd: u32, data: u32) -> io::Result<()> {
    let mut value = EthtoolValue { cmd, data };
    // SAFETY: all zeroes are a valid ifreq: integers, and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: IFNAMSIZ counts it.
    if ifname.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: the request points to a value of the size that the command expects,
    // and both outlive the call.
    unsafe { ioctl::siocethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}
