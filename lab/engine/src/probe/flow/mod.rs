//! One TCP connection, held at both ends: how it is opened, and what its ends send.

mod end;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::tcp::{Answer, Connect, accept, canonical, connect, dial, listen, receive, send};
use faultlab_base::error::{Error, Result};
use faultlab_net::capture::Act;
use faultlab_net::network::Host;
use faultlab_net::network::journal::{Journal, ProbeResult, RunningProbe};
use faultlab_net::wire::all as wires;

/// How long one exchange may take in a healthy network, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// The number of bytes to send at once before the wires get to run: a few frames.
const BURST: usize = 1 << 13;

mod ioctl {
    #![allow(missing_docs, reason = "the macro writes the function")]
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
}

/// An end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that connected.
    Client,
    /// The end that accepted.
    Server,
}

impl Side {
    /// The end on the other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// An established connection whose two sockets this process holds.
#[derive(Debug)]
pub struct Flow {
    client: End,
    server: End,
    journal: Rc<Journal>,
}

/// A socket, its host's name, and the connection as seen by the host.
#[derive(Debug)]
struct End {
    place: String,
    stream: TcpStream,
    own: SocketAddr,
    peer: SocketAddr,
}

impl End {
    fn of(host: &Host, stream: TcpStream) -> Result<Self> {
        let addresses = stream.local_addr().and_then(|own| Ok((own, stream.peer_addr()?)));
        let (own, peer) = addresses.map_err(|e| Error::kernel(host.name(), "ask a socket's addresses", e))?;
        let (own, peer) = (canonical(own), canonical(peer));
        Ok(Self { place: host.name().to_owned(), stream, own, peer })
    }
}

impl Flow {
    /// Connects `client` to `service`, an address that leads to `port` of `server`.
    ///
    /// # Errors
    /// If the healthy network does not complete the handshake.
    pub async fn open(
        client: &Host,
        service: impl Into<SocketAddr>,
        server: &Host,
        port: u16,
    ) -> Result<Self> {
        Self::open_from(client, 0, service, server, port).await
    }

    /// The same from a given source port.
    ///
    /// # Errors
    /// If the healthy network does not complete the handshake.
    pub async fn open_from(
        client: &Host,
        source_port: u16,
        service: impl Into<SocketAddr>,
        server: &Host,
        port: u16,
    ) -> Result<Self> {
        let listener = listen(server, port)?;
        let met = dial(client, source_port, service.into(), PATIENCE, |_| {}).await?;
        let flow = Self::of(client, met, server, &listener).await?;
        flow.map_err(|met| Error::Lab(format!("{}: connect: {met}", client.name())))
    }

    /// The same for a network that may not complete the handshake: in that case it
    /// returns the client's result.
    ///
    /// # Errors
    /// If no socket can be created, or the kernel returns an error that no network
    /// can cause.
    pub async fn try_open(
        client: &Host,
        source_port: u16,
        service: impl Into<SocketAddr>,
        server: &Host,
        port: u16,
        patience: Duration,
    ) -> Result<std::result::Result<Self, Connect>> {
        let listener = listen(server, port)?;
        let met = connect(client, source_port, service, patience).await?.into_inner();
        Self::of(client, met, server, &listener).await
    }

    async fn of(
        client: &Host,
        met: Connect,
        server: &Host,
        listener: &TcpListener,
    ) -> Result<std::result::Result<Self, Connect>> {
        let connected = match met {
            Connect::Connected { stream, .. } => stream,
            met => return Ok(Err(met)),
        };
        let accepted = accept(server.name(), listener, PATIENCE).await?;
        accepted.set_nodelay(true).map_err(|e| Error::kernel(server.name(), "TCP_NODELAY", e))?;
        Ok(Ok(Self {
            client: End::of(client, connected)?,
            server: End::of(server, accepted)?,
            journal: Rc::clone(client.journal()),
        }))
    }

    fn side(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Begins the record of a probe.
    fn tries(&mut self, side: Side, act: Act) -> RunningProbe {
        let journal = Rc::clone(&self.journal);
        let End { place, own, peer, .. } = self.side(side);
        let noted = journal.begin(place, act, *peer);
        noted.local(Some(*own));
        noted
    }

    /// The socket of a side.
    pub fn stream(&mut self, side: Side) -> &mut TcpStream {
        &mut self.side(side).stream
    }

    /// Has `side` send a few bytes, and the other side wait for them.
    ///
    /// Returns the first result: the bytes arrived, or the sender got an error. If the
    /// connection has ended for the receiver, returns the sender's result, if it gets
    /// one.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn say(&mut self, side: Side, patience: Duration) -> Result<ProbeResult<Answer>> {
        let probe = self.tries(side, Act::Speaks);
        Ok(probe.met(self.words(side, patience).await?))
    }

    async fn words(&mut self, side: Side, patience: Duration) -> Result<Answer> {
        let End { place, stream, .. } = self.side(side);
        let said = send(place, stream, b"hello").await?;
        if said != Answer::Received {
            return Ok(said);
        }
        let (speaker, listener) = match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        tokio::select! {
            biased;
            heard = receive(&listener.place, &mut listener.stream, patience) => match heard? {
                Answer::Received => Ok(Answer::Received),
                Answer::Nothing => Ok(Answer::Nothing),
                gone => match receive(&speaker.place, &mut speaker.stream, patience).await? {
                    Answer::Nothing => Ok(gone),
                    met => Ok(met),
                },
            },
            met = receive(&speaker.place, &mut speaker.stream, 2 * patience) => met,
        }
    }

    /// Has `side` send a few bytes, and returns the receiver's result. Unlike
    /// [`Flow::say`], it does not read on `side`, which may have received the other's
    /// FIN.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn deliver(&mut self, side: Side, patience: Duration) -> Result<ProbeResult<Answer>> {
        let probe = self.tries(side, Act::Speaks);
        let End { place, stream, .. } = self.side(side);
        let met = match send(place, stream, b"hello").await? {
            Answer::Received => self.wait(side.other(), patience).await?,
            met => met,
        };
        Ok(probe.met(met))
    }

    /// The error that ended a side's connection (socket(7): SO_ERROR), for a side
    /// that has read the other's FIN and gets nothing else by reading;
    /// [`Answer::Nothing`] if there is none.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub fn ended(&mut self, side: Side) -> Result<Answer> {
        let End { place, stream, .. } = self.side(side);
        match stream.take_error() {
            Ok(None) => Ok(Answer::Nothing),
            Ok(Some(error)) | Err(error) => Answer::of(place, Err(error)),
        }
    }

    /// A request and its answer: each side sends once, `first` first.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn exchange(&mut self, first: Side, patience: Duration) -> Result<ProbeResult<Answer>> {
        let probe = self.tries(first, Act::Speaks);
        let met = match self.words(first, patience).await? {
            Answer::Received => self.words(first.other(), patience).await?,
            met => met,
        };
        Ok(probe.met(met))
    }

    /// Has `side` send this many bytes while the other side receives them.
    ///
    /// # Errors
    /// [`Error::Deadline`] if not all of them arrive; any error that ends the
    /// connection.
    pub async fn transfer(&mut self, side: Side, bytes: usize) -> Result<()> {
        match self.carry(side, bytes, PATIENCE * 4).await {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => {
                Err(Error::kernel(self.side(side).place.as_str(), format!("transfer {bytes} bytes"), e))
            }
            None => Err(Error::Deadline {
                place: self.side(side.other()).place.clone(),
                condition: format!("{bytes} bytes to arrive"),
                waited: PATIENCE * 4,
            }),
        }
    }

    /// The same over a network that may lose them: returns the receiver's result.
    /// [`Answer::Received`] means that all arrived, [`Answer::Nothing`] that some
    /// were missing after `patience`.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn try_transfer(
        &mut self,
        side: Side,
        bytes: usize,
        patience: Duration,
    ) -> Result<ProbeResult<Answer>> {
        let probe = self.tries(side, Act::Speaks);
        let met = match self.carry(side, bytes, patience).await {
            Some(Ok(())) => Answer::Received,
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Answer::Closed,
            Some(Err(error)) => Answer::of(&self.side(side).place, Err(error))?,
            None => Answer::Nothing,
        };
        Ok(probe.met(met))
    }

    /// Has `side` send while the other receives; `None` after `patience`.
    async fn carry(&mut self, side: Side, bytes: usize, patience: Duration) -> Option<io::Result<()>> {
        let (speaker, listener) = match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        let data = vec![b'.'; bytes];
        let mut arrived = vec![0; bytes];
        let speaks = async {
            for burst in data.chunks(BURST) {
                wires::after_each_step(speaker.stream.write_all(burst)).await?;
            }
            Ok(())
        };
        let listens = wires::after_each_step(listener.stream.read_exact(&mut arrived));
        let both = async { tokio::try_join!(speaks, listens) };
        timeout(patience, both).await.ok().map(|carried| carried.map(|_| ()))
    }

    /// Waits until each side has received the acknowledgement of all it sent.
    ///
    /// # Errors
    /// [`Error::Deadline`] if one does not arrive.
    pub async fn settle(&mut self) -> Result<()> {
        let begun = Instant::now();
        for side in [Side::Client, Side::Server] {
            while self.unacknowledged(side)? > 0 {
                if begun.elapsed() > PATIENCE {
                    return Err(Error::Deadline {
                        place: self.side(side).place.clone(),
                        condition: "an acknowledgement of all it sent".into(),
                        waited: PATIENCE,
                    });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// The number of bytes that a side has sent and that are not acknowledged
    /// (tcp(7): SIOCOUTQ).
    fn unacknowledged(&mut self, side: Side) -> Result<libc::c_int> {
        let End { place, stream, .. } = self.side(side);
        let mut bytes = 0;
        // SAFETY: the descriptor is open, and SIOCOUTQ writes one int.
        #[allow(unsafe_code, reason = "an ioctl, see SAFETY")]
        unsafe { ioctl::siocoutq(stream.as_raw_fd(), &raw mut bytes) }
            .map_err(|e| Error::kernel(place.as_str(), "SIOCOUTQ", e))?;
        Ok(bytes)
    }

    /// Waits until something happens to an idle side's connection.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn watch(&mut self, side: Side, patience: Duration) -> Result<ProbeResult<Answer>> {
        let probe = self.tries(side, Act::Waits);
        Ok(probe.met(self.wait(side, patience).await?))
    }

    async fn wait(&mut self, side: Side, patience: Duration) -> Result<Answer> {
        let End { place, stream, .. } = self.side(side);
        receive(place, stream, patience).await
    }

    /// Enables SO_KEEPALIVE on a side; for values that are not given, the sysctls
    /// apply.
    ///
    /// # Errors
    /// If the kernel rejects a value.
    pub fn keep_alive(
        &mut self,
        side: Side,
        time: Option<Duration>,
        intvl: Option<Duration>,
        probes: Option<u32>,
    ) -> Result<()> {
        let End { place, stream, .. } = self.side(side);
        let socket = SockRef::from(&*stream);
        let failed = |e| Error::kernel(place.as_str(), "SO_KEEPALIVE", e);
        socket.set_keepalive(true).map_err(failed)?;
        let mut options = TcpKeepalive::new();
        if let Some(time) = time {
            options = options.with_time(time);
        }
        if let Some(intvl) = intvl {
            options = options.with_interval(intvl);
        }
        if let Some(probes) = probes {
            options = options.with_retries(probes);
        }
        socket.set_tcp_keepalive(&options).map_err(failed)
    }

    /// Sets TCP_USER_TIMEOUT on a side.
    ///
    /// # Errors
    /// If the kernel rejects it.
    pub fn user_timeout(&mut self, side: Side, timeout: Duration) -> Result<()> {
        let End { place, stream, .. } = self.side(side);
        SockRef::from(&*stream)
            .set_tcp_user_timeout(Some(timeout))
            .map_err(|e| Error::kernel(place.as_str(), "TCP_USER_TIMEOUT", e))
    }
}
