//! Connect, send and receive over TCP.
//!
//! A socket is created inside its host's namespace and awaited outside it.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use faultlab_base::error::{Error, Result};
use faultlab_net::capture::Act;
use faultlab_net::network::Host;
use faultlab_net::network::journal::ProbeResult;
use faultlab_net::topology::Family;

/// The result of a connect().
#[derive(Debug)]
pub enum Connect {
    /// The handshake completed.
    Connected {
        /// The socket.
        stream: TcpStream,
        /// The time from the first SYN to the end of the handshake.
        after: Duration,
    },
    /// ECONNREFUSED: a RST answered the SYN.
    Refused,
    /// EHOSTUNREACH or ENETUNREACH.
    Unreachable,
    /// EADDRNOTAVAIL: no source port was left for this destination
    /// (net/ipv4/inet_hashtables.c: __inet_hash_connect). No SYN was sent.
    NoPort,
    /// No result within the caller's patience, or the kernel gave up (ETIMEDOUT).
    TimedOut {
        /// How long the connect() took.
        after: Duration,
    },
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected { .. } => "connected",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::NoPort => "EADDRNOTAVAIL",
            Self::TimedOut { .. } => "timed out",
        })
    }
}

impl Connect {
    /// The connected socket, for a scenario that cannot continue without it.
    ///
    /// # Errors
    /// A sentence that reports any other result.
    pub fn stream(self, place: &str) -> Result<TcpStream> {
        match self {
            Self::Connected { stream, .. } => Ok(stream),
            other => Err(Error::Lab(format!("{place}: connect: {other}"))),
        }
    }
}

/// The result of a send or a receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The bytes arrived.
    Received,
    /// The peer closed the connection.
    Closed,
    /// ECONNRESET or EPIPE: a RST ended the connection.
    Reset,
    /// ETIMEDOUT: the kernel gave up on the connection.
    TimedOut,
    /// Nothing happened within the caller's patience.
    Nothing,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "ETIMEDOUT",
            Self::Nothing => "no answer",
        })
    }
}

impl Answer {
    /// Converts the result of a read() or write() on a connected socket.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub fn of(place: &str, result: io::Result<usize>) -> Result<Self> {
        match result {
            Ok(0) => Ok(Self::Closed),
            Ok(_) => Ok(Self::Received),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNRESET | libc::EPIPE) => Ok(Self::Reset),
                Some(libc::ETIMEDOUT) => Ok(Self::TimedOut),
                _ => Err(Error::kernel(place, "send or receive", error)),
            },
        }
    }
}

/// Listens on a port of a host, on all of its addresses.
///
/// # Errors
/// If the port is taken.
pub fn listen(at: &Host, port: u16) -> Result<TcpListener> {
    listen_with_backlog(at, port, 128)
}

/// The same with a given backlog (listen(2)): how many connections may wait to be
/// accepted. net.core.somaxconn limits it.
///
/// # Errors
/// If the port is taken.
pub fn listen_with_backlog(at: &Host, port: u16, backlog: i32) -> Result<TcpListener> {
    let failed = |e: io::Error| Error::kernel(at.name(), format!("listen on port {port}"), e);
    at.namespace()
        .enter(|| {
            // An IPv6 socket accepts connections of both families.
            let family = at.address_of(Family::V6).map_or(Family::V4, Family::of);
            let socket =
                Socket::new(domain(family), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
            if family == Family::V6 {
                socket.set_only_v6(at.address_of(Family::V4).is_none())?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(family.unspecified(), port).into())?;
            socket.listen(backlog)?;
            TcpListener::from_std(socket.into())
        })
        .map_err(failed)
}

pub(super) fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

/// A socket address as it appears in packets: an IPv4 connection of an IPv6 socket
/// has an IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Accepts the next connection.
///
/// # Errors
/// [`Error::Deadline`] if there was none.
pub async fn accept(place: &str, listener: &TcpListener, patience: Duration) -> Result<TcpStream> {
    match timeout(patience, listener.accept()).await {
        Ok(Ok((stream, _))) => Ok(stream),
        Ok(Err(error)) => Err(Error::kernel(place, "accept", error)),
        Err(_) => Err(Error::Deadline {
            place: place.into(),
            condition: "a connection to accept".into(),
            waited: patience,
        }),
    }
}

/// Connects from a host, from the given source port or one that the kernel picks (0),
/// and waits no longer than the caller's patience.
///
/// # Errors
/// If no socket can be created, or the kernel returns an error that no network can
/// cause.
pub async fn connect(
    from: &Host,
    source_port: u16,
    to: impl Into<SocketAddr>,
    patience: Duration,
) -> Result<ProbeResult<Connect>> {
    let to = to.into();
    let probe = from.journal().begin(from.name(), Act::Connects, to);
    let met = dial(from, source_port, to, patience, |local| probe.local(local)).await?;
    Ok(probe.met(met))
}

/// The same with socket options, which `configure` sets before the connect().
///
/// # Errors
/// As [`connect`], or if an option is rejected.
pub async fn connect_with(
    from: &Host,
    to: impl Into<SocketAddr>,
    patience: Duration,
    configure: impl FnOnce(&Socket) -> io::Result<()>,
) -> Result<ProbeResult<Connect>> {
    let to = to.into();
    let probe = from.journal().begin(from.name(), Act::Connects, to);
    let met = dial_with(from, 0, to, patience, configure, |local| probe.local(local)).await?;
    Ok(probe.met(met))
}

/// Like [`connect`], but the journal gets no record of it. `local` receives the
/// socket's local address.
///
/// # Errors
/// As [`connect`].
pub async fn dial(
    from: &Host,
    source_port: u16,
    to: SocketAddr,
    patience: Duration,
    local: impl FnOnce(Option<SocketAddr>),
) -> Result<Connect> {
    dial_with(from, source_port, to, patience, |_| Ok(()), local).await
}

async fn dial_with(
    from: &Host,
    source_port: u16,
    to: SocketAddr,
    patience: Duration,
    configure: impl FnOnce(&Socket) -> io::Result<()>,
    local: impl FnOnce(Option<SocketAddr>),
) -> Result<Connect> {
    let failed = |e: io::Error| Error::kernel(from.name(), format!("connect to {to}"), e);
    let family = Family::of(to.ip());
    let socket = from
        .namespace()
        .enter(|| {
            let socket =
                Socket::new(domain(family), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            configure(&socket)?;
            if source_port != 0 {
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(family.unspecified(), source_port).into())?;
            }
            Ok(socket)
        })
        .map_err(failed)?;
    let begun = Instant::now();
    let handshake = async {
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => local(socket.local_addr().ok().and_then(|address| address.as_socket())),
        }
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(stream), Err)
    };
    match timeout(patience, handshake).await {
        Ok(Ok(stream)) => Ok(Connect::Connected { stream, after: begun.elapsed() }),
        Err(_) => Ok(Connect::TimedOut { after: begun.elapsed() }),
        Ok(Err(error)) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Ok(Connect::Refused),
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Ok(Connect::Unreachable),
            Some(libc::EADDRNOTAVAIL) => Ok(Connect::NoPort),
            Some(libc::ETIMEDOUT) => Ok(Connect::TimedOut { after: begun.elapsed() }),
            _ => Err(failed(error)),
        },
    }
}

/// Reads once, and waits up to `patience` for something to read.
///
/// # Errors
/// If the kernel returns an error that no network can cause.
pub async fn receive(place: &str, stream: &mut TcpStream, patience: Duration) -> Result<Answer> {
    let mut bytes = [0; 4096];
    match timeout(patience, stream.read(&mut bytes)).await {
        Ok(result) => Answer::of(place, result),
        Err(_) => Ok(Answer::Nothing),
    }
}

/// Sends a few bytes.
///
/// # Errors
/// If the kernel returns an error that no network can cause.
pub async fn send(place: &str, stream: &mut TcpStream, bytes: &[u8]) -> Result<Answer> {
    Answer::of(place, stream.write_all(bytes).await.map(|()| bytes.len()))
}
