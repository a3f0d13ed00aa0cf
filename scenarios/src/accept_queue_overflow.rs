//! "Some connects take a second, some three or seven, and the server is idle."

use lab::evidence::sockets::{State, sockets};
use lab::network::journal::ProbeResult;
use lab::prelude::*;
use lab::probe::tcp::{accept, listen_with_backlog, receive, send};
use lab::wire::Wire;
use lab::wire::segment::Header;
use tokio::task::JoinSet;

const CARD: Card = Card {
    name: "accept-queue-overflow",
    title: "An application is slow to accept: connects take seconds, or succeed and hang",
    family: "queues, tables and ports",
    saw: "Now and then a connect takes 1, 3 or 7 s longer, while the server's processor is idle. `netstat -s`: \
          \"times the listen queue of a socket overflowed\", \"SYNs to LISTEN sockets dropped\"; `nstat`: \
          TcpExtListenOverflows, TcpExtListenDrops; `ss -lt`: Recv-Q 129, Send-Q 128. Larger somaxconn and \
          tcp_max_syn_backlog \"did not improve the issue\".",
    cause: "A connection waits in the listener's queue until the application calls accept(). The queue takes \
            one more than the backlog of listen(), which somaxconn limits. When it is full, SYNs are dropped \
            and the clients retransmit them after 1, 3, 7 s (since 6.5 each second at first). A last ACK of a \
            handshake is dropped too: that client believes it is connected.",
    function: "net/ipv4/tcp_input.c: tcp_conn_request; net/ipv4/tcp_minisocks.c: tcp_check_req; \
               include/net/sock.h: sk_acceptq_is_full",
    cure: "A larger backlog and a larger somaxconn: the smaller of the two counts. A thread that only \
           accepts. Both end the wait in connect() only: the answer still waits until the application reads \
           the request. tcp_max_syn_backlog and SYN cookies do not help: they are about handshakes that are \
           not complete. tcp_abort_on_overflow=1 turns the wait of a client that believes it is connected \
           into a reset.",
    reading: &[
        "logstash-input-lumberjack#83, netdata#2855, onload#182: reports",
        "listen(2); Documentation/networking/ip-sysctl.rst: somaxconn, tcp_abort_on_overflow",
        "5ea8ea2cb7f1 tcp/dccp: drop SYN packets if accept queue is full (4.10)",
        "19f92a030ca6 net: increase SOMAXCONN to 4096 (5.4)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("connect()", "at once"), arms, play)
        .needs([Need::Veth, Need::PacketSocket])
        // Side by side, the arms delay each other's frames. In virtual time, running
        // them one after another costs nothing.
        .sequential(|env| env.clock == Clock::Virtual)
        .settings([
            Setting::number(
                "backlog",
                "the backlog of listen(), and somaxconn; 5 is the default of Python's socketserver",
                "connections",
                LONGEST,
                [5, 5],
            ),
            Setting::seconds("busy", "for how long the application does not accept", 2, 10).at_most(BUSY),
            Setting::family(),
        ])
        .lasts(|env| 4 * env.seconds("busy"))
        .eras([
            Era::new("drops-syns", "4.10 and later, and 4.9.337", |env| env.kernel.at_least(4, 9))
                .since("5ea8ea2cb7f1: a full queue drops every SYN"),
            Era::new("answers-syns", "up to 4.8", |_| true)
                .since("a SYN is answered while the queue of handshakes has room, and the last ACK dropped")
                .not_run(),
        ])
}

const LONGEST: Limit = Limit { most: 1000, why: "a play holds both ends of so many connections" };
const BUSY: Limit = Limit { most: 60, why: "tcp_synack_retries gives up after 63 s" };

const SOMAXCONN: &str = "net.core.somaxconn";

fn network(env: &Environment) -> Topology {
    Topology::new()
        .hosts(["client", "server"])
        .wire("client 10.0.0.1/24", "server 10.0.0.2/24")
        .sysctl("server", SOMAXCONN, env.number("backlog"))
        .sysctl("server", SYN_COOKIES, 1)
        .sysctl("server", "net.ipv4.tcp_abort_on_overflow", 0)
}

const SYN_COOKIES: &str = "net.ipv4.tcp_syncookies";

#[derive(Debug, Clone)]
struct Conduct {
    backlog: i32,
    busy: Duration,
    /// Another thread accepts while the application is busy.
    accepts_while_busy: bool,
    /// The last ACK of the handshake arrives after the queue has become full.
    ack_is_late: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let backlog = i32::try_from(env.number("backlog")).unwrap_or(i32::MAX);
    let (larger, busy) = (2 * backlog, env.seconds("busy"));
    let base = Conduct { backlog, busy: Duration::ZERO, accepts_while_busy: false, ack_is_late: false };
    Arms::control("the application accepts at once", network(env), base)
        .fault("the application is busy, and does not accept for a while", |arm| arm.busy = busy)
        .variant("late-ack", "the queue fills before the last ACK of the handshake arrives", |arm| {
            arm.ack_is_late = true;
        })
        .variant("late-ack-abort", "the same, tcp_abort_on_overflow=1", |arm| {
            arm.ack_is_late = true;
            arm.sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1);
        })
        .remedy("backlog-and-somaxconn", "the backlog and somaxconn are twice as large", |arm| {
            arm.backlog = larger;
            arm.sysctl("server", SOMAXCONN, larger);
        })
        .remedy("backlog", "only the backlog is twice as large", |arm| arm.backlog = larger)
        .remedy("somaxconn", "only somaxconn is twice as large", |arm| {
            arm.sysctl("server", SOMAXCONN, larger);
        })
        .remedy("accept-thread", "another thread accepts while the application is busy", |arm| {
            arm.accepts_while_busy = true;
        })
        .remedy("max-syn-backlog", "tcp_max_syn_backlog=65536", |arm| {
            arm.sysctl("server", "net.ipv4.tcp_max_syn_backlog", 65_536);
        })
        .remedy("syncookies", "tcp_syncookies=2: a SYN cookie for every connection", |arm| {
            arm.sysctl("server", SYN_COOKIES, 2);
        })
        .remedy("abort-on-overflow", "tcp_abort_on_overflow=1", |arm| {
            arm.sysctl("server", "net.ipv4.tcp_abort_on_overflow", 1);
        })
        .in_family(env.family())
}

const PATIENCE: Duration = Duration::from_secs(5);
/// The source port of the client that is observed.
const PORT: u16 = 40_000;

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let late = conduct.ack_is_late;
    let (hold, handle) = policy::Hold::matching(move |direction, segment| {
        let header = segment.header;
        late && direction == Direction::There && header.src.port() == PORT && !header.flags.opens()
    });
    let wire = stage.wire("client", "server", hold)?;
    let listener = listen_with_backlog(server, 80, conduct.backlog)?;
    let to = (server.address(), 80);
    let patience = 4 * stage.env.seconds("busy");
    let free = stage.elapsed() + conduct.busy;
    let application = async {
        if !conduct.accepts_while_busy {
            stage.pass(conduct.busy).await;
        }
        let mut answers = JoinSet::new();
        loop {
            let mut stream = accept("server", &listener, Duration::MAX).await?;
            let wait = free.saturating_sub(stage.elapsed());
            answers.spawn_local(async move {
                tokio::time::sleep(wait).await;
                // The client may have gone.
                let _ = send("server", &mut stream, b"hello").await;
            });
        }
    };
    let clients = async {
        let mut others = vec![];
        let mut fill = async |count: u64| -> Result<()> {
            for _ in 0..count {
                others.push(connect(client, 0, to, PATIENCE).await?.into_inner().stream("client")?);
            }
            Ok(())
        };
        // The queue takes one more than the backlog.
        fill(stage.env.number("backlog")).await?;
        let queue = || -> Result<String> {
            let listener = sockets(server.namespace())?.into_iter().find(|s| s.state == State::Listen);
            Ok(match listener {
                Some(l) if l.recv_queue > l.send_queue => format!("{}, {}", l.recv_queue, l.send_queue),
                Some(_) => "not full".to_owned(),
                None => "none".to_owned(),
            })
        };
        if late {
            let begun = stage.elapsed();
            let met = connect(client, PORT, to, patience).await?;
            stage.until("the last ACK to be held", || Ok(handle.held() > 0)).await?;
            fill(1).await?;
            // The last ACK of the last client must have arrived.
            wire.caught_up().await;
            let queue = queue()?;
            handle.release();
            answered(stage, &wire, met, begun, &queue).await
        } else {
            fill(1).await?;
            wire.caught_up().await;
            let (queue, begun) = (queue()?, stage.elapsed());
            let met = connect(client, PORT, to, patience).await?;
            answered(stage, &wire, met, begun, &queue).await
        }
    };
    stage.beside(clients, application).await
}

/// Waits for the answer to the observed client, which connected at `begun`, and
/// records what was observed. `queue` is Recv-Q and Send-Q of the listener.
async fn answered(
    stage: &Stage<'_>,
    wire: &Wire,
    met: ProbeResult<Connect>,
    begun: Duration,
    queue: &str,
) -> Result<()> {
    let busy = stage.env.seconds("busy");
    wire.caught_up().await;
    let is_syn = |header: &Header| header.src.port() == PORT && header.flags.opens();
    let syns = wire.frames().into_iter().filter_map(|f| f.header).filter(is_syn).count();
    let connected = match &*met {
        Connect::Connected { .. } if syns == 1 => "at once".to_owned(),
        Connect::Connected { .. } => "after another SYN".to_owned(),
        other => other.to_string(),
    };
    stage.observe_of(&met, "connect()", &connected);
    let answer = match met.into_inner() {
        Connect::Connected { mut stream, .. } => receive("client", &mut stream, 4 * busy).await?,
        _ => Answer::Nothing,
    };
    let after = stage.elapsed().saturating_sub(begun);
    let answer = match answer {
        Answer::Received if after < busy / 2 => "at once".to_owned(),
        Answer::Received => "late".to_owned(),
        other => other.to_string(),
    };
    stage.observe("the answer to it", &answer);
    stage.observe("Recv-Q, Send-Q", queue);
    let changes = stage.counters("server")?;
    let overflows = changes.get("ListenOverflows").is_some_and(|n| n > 0);
    stage.observe("counted", if overflows { "ListenOverflows" } else { "nothing" });
    let (seconds, counted) = (after.as_secs_f32(), changes.telling());
    stage.because(format!(
        "the queue of the listener: {queue}; {syns} SYN(s), connected: {connected}; the answer, {seconds:.1} s after the \
         first SYN: {answer}; counted: {counted}"
    ));
    Ok(())
}
