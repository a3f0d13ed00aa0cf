//! The ways in which a flow ends: by FIN, by RST, or without a segment.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpRepair;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::{End, Flow, PATIENCE, Side};
use crate::probe::tcp::{Answer, receive};
use faultlab_base::error::{Error, Result};

impl Flow {
    /// Has `side` shut down its sending direction (shutdown(SHUT_WR)), and the other
    /// side read the end of file. The other direction stays open.
    ///
    /// # Errors
    /// If the FIN does not arrive.
    pub async fn half_close(&mut self, side: Side) -> Result<()> {
        let End { place, stream, .. } = self.side(side);
        stream.shutdown().await.map_err(|e| Error::kernel(place.as_str(), "shutdown", e))?;
        let met = self.wait(side.other(), PATIENCE).await?;
        if met == Answer::Closed {
            return Ok(());
        }
        let place = self.side(side.other()).place.clone();
        Err(Error::Lab(format!("{place}: waited for a FIN and met: {met}")))
    }

    /// Closes both sockets without a segment, as if both hosts had lost power: the
    /// network does not learn that the connection has ended.
    ///
    /// # Errors
    /// If this process lacks CAP_NET_ADMIN in a host's user namespace, which
    /// TCP_REPAIR needs (tcp(7)).
    pub fn abandon(self) -> Result<()> {
        // net/ipv4/tcp.c, __tcp_close(): a socket in repair mode sends neither FIN nor
        // RST.
        for End { place, stream, .. } in [self.client, self.server] {
            setsockopt(&stream, TcpRepair, &1).map_err(|e| Error::kernel(place, "TCP_REPAIR", e))?;
        }
        Ok(())
    }

    /// Has `side` close with SO_LINGER 0, which sends a RST and leaves no TIME_WAIT, and
    /// waits until the other side has received it.
    ///
    /// # Errors
    /// If the RST does not arrive.
    pub async fn reset(self, side: Side) -> Result<()> {
        let (End { place, stream, .. }, mut other) = match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        };
        let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        linger.map_err(|e| Error::kernel(place, "SO_LINGER", e))?;
        drop(stream);
        match receive(&other.place, &mut other.stream, PATIENCE).await? {
            Answer::Reset => Ok(()),
            met => Err(Error::Lab(format!("{}: waited for a RST and met: {met}", other.place))),
        }
    }

    /// Ends a side's connection without a segment, as if its host had restarted: the
    /// other side does not learn of it, and this side's kernel answers later segments
    /// with a RST. This side cannot be used afterwards.
    ///
    /// # Errors
    /// If this process lacks CAP_NET_ADMIN in the host's user namespace, which
    /// TCP_REPAIR needs (tcp(7)).
    pub fn crash(&mut self, side: Side) -> Result<()> {
        let End { place, stream, .. } = self.side(side);
        let failed = |tried: &str, e: io::Error| Error::kernel(place.as_str(), tried, e);
        setsockopt(&*stream, TcpRepair, &1).map_err(|e| failed("TCP_REPAIR", e.into()))?;
        // net/ipv4/tcp.c, tcp_disconnect(): a socket in repair mode sends no RST.
        let family = libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or_default();
        let unspecified = libc::sockaddr { sa_family: family, sa_data: [0; 14] };
        let length = libc::socklen_t::try_from(size_of_val(&unspecified)).unwrap_or_default();
        // SAFETY: the descriptor is open, and the address is valid for its length.
        #[allow(unsafe_code, reason = "a system call, see SAFETY")]
        let done = unsafe { libc::connect(stream.as_raw_fd(), &raw const unspecified, length) };
        if done == 0 { Ok(()) } else { Err(failed("connect to AF_UNSPEC", io::Error::last_os_error())) }
    }

    /// Closes both ends, `first` first, and waits until each has received the other's
    /// FIN. The first end goes through TIME_WAIT.
    ///
    /// # Errors
    /// If the FINs do not arrive.
    pub async fn close(mut self, first: Side) -> Result<()> {
        self.half_close(first).await?;
        self.half_close(first.other()).await
    }
}
