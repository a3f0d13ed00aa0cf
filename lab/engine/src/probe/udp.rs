//! Questions and answers over UDP.
//!
//! A client keeps its socket, and so its source port, until it is dropped. The number
//! of a question is in its first bytes and in its answer's, so that a late answer is
//! not taken for that of the next question.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

use super::tcp::domain;
use faultlab_base::error::{Error, Result};
use faultlab_net::capture::Act;
use faultlab_net::network::Host;
use faultlab_net::network::journal::{Journal, ProbeResult};
use faultlab_net::topology::Family;

/// What a question met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Its answer came.
    Received,
    /// ECONNREFUSED: an ICMP port unreachable came.
    Refused,
    /// EHOSTUNREACH or ENETUNREACH: no route leads there, or ICMP said so.
    Unreachable,
    /// EPERM: the sending host itself dropped the datagram, in netfilter.
    NotSent,
    /// Nothing came within the caller's patience.
    Nothing,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::NotSent => "not sent",
            Self::Nothing => "no answer",
        })
    }
}

impl Reply {
    /// The result of a send() or recv() that failed.
    fn of(place: &str, error: io::Error) -> Result<Self> {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Ok(Self::Refused),
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Ok(Self::Unreachable),
            Some(libc::EPERM) => Ok(Self::NotSent),
            _ => Err(Error::kernel(place, "send or receive a datagram", error)),
        }
    }
}

/// A UDP socket that is connected to a service.
#[derive(Debug)]
pub struct UdpClient {
    place: String,
    socket: UdpSocket,
    own: SocketAddr,
    service: SocketAddr,
    asked: Cell<u32>,
    journal: Rc<Journal>,
}

impl UdpClient {
    /// A socket from the given source port, or one that the kernel picks (0).
    ///
    /// # Errors
    /// If the port is taken, or no route leads to the service.
    pub fn open(from: &Host, source_port: u16, service: impl Into<SocketAddr>) -> Result<Self> {
        let service = service.into();
        let socket = bound(from, Family::of(service.ip()), source_port)?;
        let failed = |e: io::Error| Error::kernel(from.name(), format!("connect to {service}"), e);
        socket.connect(&service.into()).map_err(failed)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(failed)?;
        let own = socket.local_addr().map_err(failed)?;
        Ok(Self {
            place: from.name().to_owned(),
            socket,
            own,
            service,
            asked: Cell::new(0),
            journal: Rc::clone(from.journal()),
        })
    }

    /// Its own address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.own
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn ask(&self, patience: Duration) -> Result<ProbeResult<Reply>> {
        let probe = self.journal.begin(&self.place, Act::Speaks, self.service);
        probe.local(Some(self.own));
        let [met] = self.ask_together(patience).await?;
        Ok(probe.met(met))
    }

    /// Asks several questions, one right after the other without waiting in between,
    /// and then waits for all of the answers. An ICMP error ends the wait: it does not
    /// tell to which question it belongs. The journal gets no record of it.
    ///
    /// # Errors
    /// If the kernel returns an error that no network can cause.
    pub async fn ask_together<const N: usize>(&self, patience: Duration) -> Result<[Reply; N]> {
        let deadline = Instant::now() + patience;
        let mut met = [Reply::Nothing; N];
        let numbers = [(); N].map(|()| self.asked.replace(self.asked.get().wrapping_add(1)));
        for (number, met) in numbers.iter().zip(&mut met) {
            if let Err(error) = SockRef::from(&self.socket).send(&number.to_be_bytes()) {
                *met = Reply::of(&self.place, error)?;
            }
        }
        let mut answer = [0; 64];
        while met.contains(&Reply::Nothing) {
            match timeout_at(deadline, self.socket.recv(&mut answer)).await {
                Err(_) => break,
                Ok(Ok(_)) => {
                    let answered = answer.first_chunk().map(|number| u32::from_be_bytes(*number));
                    let which = numbers.iter().position(|number| Some(*number) == answered);
                    if let Some(met) = which.and_then(|which| met.get_mut(which)) {
                        *met = Reply::Received;
                    }
                }
                Ok(Err(error)) => {
                    let failed = Reply::of(&self.place, error)?;
                    met.iter_mut().filter(|met| **met == Reply::Nothing).for_each(|met| *met = failed);
                }
            }
        }
        Ok(met)
    }
}

/// A UDP service on a port of a host. It answers each question with the question,
/// until it is dropped and its port is closed.
#[derive(Debug)]
pub struct UdpServer {
    received: Rc<Cell<u64>>,
    answers: Rc<Cell<bool>>,
    takes: Rc<Cell<Duration>>,
    task: JoinHandle<()>,
}

impl UdpServer {
    /// Starts to answer.
    ///
    /// # Errors
    /// If the port is taken.
    ///
    /// # Panics
    /// Outside of a [`LocalSet`](tokio::task::LocalSet).
    pub fn start(at: &Host, port: u16) -> Result<Self> {
        let family = Family::of(at.address());
        let socket = UdpSocket::from_std(bound(at, family, port)?.into())
            .map_err(|e| Error::kernel(at.name(), "watch a UDP socket", e))?;
        let (received, answers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(true)));
        let takes = Rc::new(Cell::new(Duration::ZERO));
        let (socket, count) = (Rc::new(socket), Rc::clone(&received));
        let (goes_on, after) = (Rc::clone(&answers), Rc::clone(&takes));
        let task = spawn_local(async move {
            let mut question = [0; 64];
            // An unconnected socket gets no ICMP errors (udp(7)).
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                count.set(count.get() + 1);
                if goes_on.get() {
                    let (socket, answer, after) =
                        (Rc::clone(&socket), question[..length].to_vec(), after.get());
                    spawn_local(async move {
                        if !after.is_zero() {
                            sleep(after).await;
                        }
                        // The client notices if its answer is missing.
                        let _ = socket.send_to(&answer, from).await;
                    });
                }
            }
        });
        Ok(Self { received, answers, takes, task })
    }

    /// How many questions it has received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Makes each answer take this long from now on.
    pub fn answer_after(&self, time: Duration) {
        self.takes.set(time);
    }

    /// Makes it answer no more, without a word: its port stays open, so no ICMP error
    /// tells the clients.
    pub fn fall_silent(&self) {
        self.answers.set(false);
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A UDP socket of a host, on a port of all its addresses of a family.
fn bound(at: &Host, family: Family, port: u16) -> Result<Socket> {
    at.namespace()
        .enter(|| {
            let socket =
                Socket::new(domain(family), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
            socket.bind(&SocketAddr::new(family.unspecified(), port).into())?;
            Ok(socket)
        })
        .map_err(|e: io::Error| Error::kernel(at.name(), format!("bind UDP port {port}"), e))
}
