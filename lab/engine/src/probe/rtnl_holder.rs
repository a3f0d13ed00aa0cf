//! The RTNL mutex, held during a page fault: under the lock, the kernel copies from the
//! memory of a program, and the page is missing.
//!
//! net/ethtool/ioctl.c: dev_ethtool takes the RTNL mutex, then ethtool_get_strings
//! copies a structure from the caller's memory. The second half of the structure lies
//! in a page registered with userfaultfd(2), and nothing handles the fault, just as
//! nothing resolves a page on a dead NFS server or a hung swap device. The sleep is
//! killable, so SIGKILL ends it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::time::{Instant, sleep};

use super::Child;
use super::child::Life;
use faultlab_base::error::{Error, Result};
use faultlab_net::network::Host;

/// How soon the lock must be held.
const HELD: Duration = Duration::from_secs(5);

/// A process that sleeps with the RTNL mutex locked. Meanwhile, network devices cannot
/// be configured in any namespace of the machine.
#[derive(Debug)]
#[must_use = "a holder that is dropped lets go"]
pub struct RtnlHolder(Child);

impl RtnlHolder {
    /// Has a process request the strings of `device` of a host, and waits until it
    /// sleeps in the page fault.
    ///
    /// # Errors
    /// [`Error::Missing`] if the kernel has no userfaultfd; any failure to fall
    /// asleep.
    pub async fn hold(at: &Host, device: &str) -> Result<Self> {
        let failed = |tried: &str, e: io::Error| Error::kernel(at.name(), tried, e);
        let socket: OwnedFd = at
            .namespace()
            .enter(|| socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))
            .map_err(|e| failed("socket", e.into()))?;
        let mut name = [0; libc::IFNAMSIZ];
        name.iter_mut()
            .zip(device.bytes().take(libc::IFNAMSIZ - 1))
            .for_each(|(to, byte)| *to = byte.cast_signed());
        let fd = socket.as_raw_fd();
        // SAFETY: `sleep_in_ioctl` only makes system calls.
        #[allow(unsafe_code, reason = "see SAFETY")]
        let child = unsafe { Child::begin(c"rtnl-holder", move || sleep_in_ioctl(fd, name)) };
        let holder = Self(child.map_err(|e| failed("fork", e))?);
        holder.0.wanted_at(at, "a question about a device");
        holder.asleep(at.name()).await?;
        Ok(holder)
    }

    async fn asleep(&self, place: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < HELD {
            match self.0.life() {
                // From 5.7 on, the state is S and not D.
                Life::Alive { state: 'D' | 'S', .. }
                    if self.0.sleeps_in().is_none_or(|s| s.contains("userfault")) =>
                {
                    return Ok(());
                }
                Life::Zombie => {
                    let met = self.0.reap().and_then(std::result::Result::err);
                    let met = met.unwrap_or_else(|| io::Error::other("the page was there"));
                    return Err(match met.raw_os_error() {
                        Some(libc::ENOSYS) => {
                            Error::missing("CONFIG_USERFAULTFD", "take a kernel that has it")
                        }
                        _ => Error::kernel(place, "wait for a page under the RTNL mutex", met),
                    });
                }
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
        Err(Error::Deadline {
            place: place.to_owned(),
            condition: format!(
                "a process to wait for a page under the RTNL mutex; it is in state {} in {}",
                self.0.life(),
                self.0.sleeps_in().unwrap_or_default()
            ),
            waited: HELD,
        })
    }

    /// The kernel functions that it sleeps in, innermost first; `None` without the
    /// privilege to read stacks.
    #[must_use]
    pub fn sleeps_in(&self) -> Option<String> {
        self.0.sleeps_in()
    }

    /// Kills it. Returns whether it died.
    pub async fn end(self) -> bool {
        self.0.kill();
        self.0.ends_within(HELD).await && self.0.reap().is_some()
    }
}

/// Calls SIOCETHTOOL, ETHTOOL_GSTRINGS, with a request of which only the command is
/// in memory. Returns an errno, if it returns. Runs in a forked child.
fn sleep_in_ioctl(socket: RawFd, name: [libc::c_char; libc::IFNAMSIZ]) -> i32 {
    /// include/uapi/linux/userfaultfd.h.
    #[repr(C)]
    struct Api {
        version: u64,
        features: u64,
        ioctls: u64,
    }
    #[repr(C)]
    struct Register {
        start: u64,
        len: u64,
        mode: u64,
        ioctls: u64,
    }
    /// _IOWR(0xAA, 0x3f, struct uffdio_api), _IOWR(0xAA, 0x00, struct uffdio_register).
    const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
    const MODE_MISSING: u64 = 1;
    /// include/uapi/linux/ethtool.h, include/uapi/linux/sockios.h.
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    /// The page size of x86-64.
    const PAGE: usize = 4096;

    let errno = || Errno::last_raw();
    // SAFETY: system calls with structures of this function that outlive them.
    // The two pages are mapped before anything is written to the first.
    #[allow(unsafe_code, reason = "userfaultfd and SIOCETHTOOL have no safe wrapper among the dependencies")]
    unsafe {
        let Ok(uffd) = libc::c_int::try_from(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC)) else {
            return libc::EBADF;
        };
        let mut api = Api { version: 0xaa, features: 0, ioctls: 0 };
        if uffd < 0 || libc::ioctl(uffd, UFFDIO_API, &raw mut api) != 0 {
            return errno();
        }
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let pages = libc::mmap(std::ptr::null_mut(), 2 * PAGE, rights, kind, -1, 0);
        if pages == libc::MAP_FAILED {
            return errno();
        }
        let missing = pages.byte_add(PAGE);
        let mut register =
            Register { start: missing as u64, len: PAGE as u64, mode: MODE_MISSING, ioctls: 0 };
        if libc::ioctl(uffd, UFFDIO_REGISTER, &raw mut register) != 0 {
            return errno();
        }
        // struct ethtool_gstrings: the command, then the missing part.
        let command = missing.byte_sub(size_of::<u32>()).cast::<u32>();
        command.write(ETHTOOL_GSTRINGS);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name = name;
        request.ifr_ifru.ifru_data = command.cast();
        if libc::ioctl(socket, SIOCETHTOOL, &raw mut request) != 0 {
            return errno();
        }
    }
    0
}
