//! An HTTP request as the kubelet sends it, and an agent that answers.
//!
//! - pkg/probe/http/http.go: one connection per probe, no keep-alive, 200 to 399
//!   is a success
//! - Go's net/http and net: the error messages

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use lab::Result;
use lab::capture::Act;
use lab::network::Host;
use lab::probe::tcp::{Answer, Connect, dial, listen};

/// The result of a GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get {
    /// A status line.
    Status(u16),
    /// No connection within the timeout.
    NotConnected,
    /// No complete header within the timeout: sending or waiting took too long.
    TimedOut,
    /// A RST answered the SYN.
    Refused,
    /// There was no route.
    Unreachable,
    /// There was no source port.
    NoPort,
    /// A RST ended the connection.
    Reset,
    /// The connection ended before the header, or the answer was not HTTP.
    Closed,
}

impl Get {
    /// Whether a probe counts it as a success.
    #[must_use]
    pub fn succeeded(self) -> bool {
        matches!(self, Self::Status(200..=399))
    }
}

impl fmt::Display for Get {
    /// The error as Go words it, without the addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "statuscode: {code}"),
            // net/http/transport.go: errRequestCanceledConn.
            Self::NotConnected => f.write_str(
                "net/http: request canceled while waiting for connection (Client.Timeout exceeded while \
                 awaiting headers)",
            ),
            Self::TimedOut => {
                f.write_str("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
            }
            Self::Refused => f.write_str("connect: connection refused"),
            Self::Unreachable => f.write_str("connect: no route to host"),
            Self::NoPort => f.write_str("connect: cannot assign requested address"),
            Self::Reset => f.write_str("connection reset by peer"),
            Self::Closed => f.write_str("EOF"),
        }
    }
}

impl Get {
    /// The message of the kubelet about a failed probe of `to`.
    #[must_use]
    pub fn output(self, to: SocketAddr) -> String {
        match self {
            Self::Status(_) => format!("HTTP probe failed with {self}"),
            Self::Refused | Self::Unreachable | Self::NoPort => {
                format!("Get \"http://{to}/healthz\": dial tcp {to}: {self}")
            }
            Self::NotConnected | Self::TimedOut | Self::Reset | Self::Closed => {
                format!("Get \"http://{to}/healthz\": {self}")
            }
        }
    }
}

/// Requests `/healthz`. `patience` is the limit from the SYN to the end of the
/// header of the answer.
///
/// # Errors
/// If no socket can be created, or the kernel returns an error that no network
/// can cause.
pub async fn get(from: &Host, to: SocketAddr, patience: Duration) -> Result<Get> {
    let probe = from.journal().begin(from.name(), Act::Asks, to);
    let connected = Cell::new(false);
    let asked = async {
        let stream = match dial(from, 0, to, patience, |local| probe.local(local)).await? {
            Connect::Connected { stream, .. } => stream,
            Connect::Refused => return Ok(Get::Refused),
            Connect::Unreachable => return Ok(Get::Unreachable),
            Connect::NoPort => return Ok(Get::NoPort),
            Connect::TimedOut { .. } => return Ok(Get::NotConnected),
        };
        connected.set(true);
        ask(from, stream, to).await
    };
    // Dropping the stream closes a late connection.
    let late = || Ok(if connected.get() { Get::TimedOut } else { Get::NotConnected });
    let met = timeout(patience, asked).await.unwrap_or_else(|_| late())?;
    Ok(probe.met(met).into_inner())
}

async fn ask(from: &Host, mut stream: TcpStream, to: SocketAddr) -> Result<Get> {
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: {to}\r\nUser-Agent: kube-probe/1.30\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let written = stream.write_all(request.as_bytes()).await;
    let mut met = Answer::of(from.name(), written.map(|()| 1))?;
    let mut answer = vec![];
    while met == Answer::Received && header(&answer).is_none() {
        met = Answer::of(from.name(), stream.read_buf(&mut answer).await)?;
    }
    Ok(match (header(&answer).and_then(status), met) {
        (Some(code), _) => Get::Status(code),
        (None, Answer::Reset) => Get::Reset,
        (None, Answer::TimedOut) => Get::TimedOut,
        (None, _) => Get::Closed,
    })
}

/// The bytes before the empty line; `None` if it has not arrived.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&bytes[..end])
}

/// RFC 9112 4: HTTP-version SP status-code SP.
fn status(header: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(header).ok()?.lines().next()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

/// How long the agent takes for a request that arrives now.
type Busy = Rc<dyn Fn() -> Duration>;

/// An agent that answers 200 to every request, after a given time.
#[must_use = "an agent that is dropped does not answer"]
pub struct Agent<'a> {
    host: &'a Host,
    port: u16,
    busy: Busy,
    serving: Option<JoinHandle<()>>,
}

impl fmt::Debug for Agent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({}:{})", self.host.name(), self.port)
    }
}

impl<'a> Agent<'a> {
    /// An agent that does not run yet. Each request calls `busy` to learn how long
    /// it takes.
    pub fn new(host: &'a Host, port: u16, busy: impl Fn() -> Duration + 'static) -> Self {
        Self { host, port, busy: Rc::new(busy), serving: None }
    }

    /// The address of the agent.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.host.address(), self.port).into()
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.serving.is_some()
    }

    /// Starts it.
    ///
    /// # Errors
    /// If the port is in use.
    ///
    /// # Panics
    /// Outside of a tokio `LocalSet`.
    pub fn start(&mut self) -> Result<()> {
        let listener = listen(self.host, self.port)?;
        let busy = Rc::clone(&self.busy);
        self.serving = Some(tokio::task::spawn_local(async move {
            let mut requests = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                requests.spawn_local(answer(stream, Rc::clone(&busy)));
                // Reap the tasks that have ended.
                while requests.try_join_next().is_some() {}
            }
        }));
        Ok(())
    }

    /// Stops it and aborts all its requests.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Cancelled, as intended.
            let _ = serving.await;
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// Answers one request. Errors are ignored: the client may have gone.
async fn answer(mut stream: TcpStream, busy: Busy) {
    let mut request = vec![];
    while header(&request).is_none() {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    sleep(busy()).await;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status_lines() {
        for (bytes, code) in [
            (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nok"[..], Some(200)),
            (b"HTTP/1.0 503 \r\n\r\n", Some(503)),
            (b"HTTP/1.1 20 OK\r\n\r\n", None),
            (b"SSH-2.0-x\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\n", None),
        ] {
            assert_eq!(header(bytes).and_then(status), code, "{bytes:?}");
        }
    }

    #[test]
    fn redirections_are_successes() {
        let successes = [199, 200, 399, 400].map(|code| Get::Status(code).succeeded());
        assert_eq!(successes, [false, true, true, false]);
        assert!(!Get::TimedOut.succeeded());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = header(&bytes);
            let _ = status(&bytes);
        }
    }
}
