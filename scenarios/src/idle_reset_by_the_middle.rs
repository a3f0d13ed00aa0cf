//! "gRPC idle for more than 15 minutes is reset", and the server saw nothing.

use lab::evidence::sockets::{Socket, State, sockets};
use lab::prelude::*;
use lab::topology::rule::Hook;

use crate::keepalive::too_slow;
use crate::service::LOOSE;

const CARD: Card = Card {
    name: "idle-reset-by-the-middle",
    title: "A load balancer has forgotten an idle connection, and answers its next segment with a RST",
    family: "keepalive",
    saw: "The first request after a quiet time fails, the retry works: \"TCP Connection reset after connection \
          was idle for more that 15 minutes\", \"UNAVAILABLE: io exception [...] Connection reset by peer\" \
          (gRPC), \"rpc error: code = Unavailable desc = transport is closing\", now and then a 503 from a \
          proxy with a pool of connections. A capture at the server shows no RST, and its socket is still \
          ESTABLISHED; the RST at the client has the TTL of a neighbour.",
    cause: "A balancer that translates addresses forgets a connection that is idle for its timeout: IPVS 900 \
            s (`ipvsadm -l --timeout`). Its address is its own, so a segment of a connection that it no \
            longer knows reaches its own TCP, which knows no such socket and answers with a RST. Neither end \
            is told before it speaks. (Azure's balancer drops instead, after 4 to 30 minutes, or sends both \
            ends a RST when the time is over: keepalive-behind-nat.) Here conntrack with \
            nf_conntrack_tcp_loose=0, which takes up no connection in the middle, stands in for IPVS.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_new; net/ipv4/tcp_ipv4.c: tcp_v4_rcv, \
               tcp_v4_send_reset",
    cure: "SO_KEEPALIVE with a tcp_keepalive_time (TCP_KEEPIDLE, gRPC's keepalive time) below the timeout, at \
           either end; a container has its own tcp_keepalive_time since 4.5. A longer timeout in the balancer \
           (kube-proxy: --ipvs-tcp-timeout). A pool that closes connections which are idle for longer. Not \
           a cure: SO_KEEPALIVE with the kernel's 7200 s. A balancer that drops instead is worse: the \
           request hangs.",
    reading: &[
        "cloudnativelabs/kube-router#521: TCP Connection reset after connection was idle for more that 15 minutes",
        "kubernetes/kubernetes#71358: IPVS default sysctls and configuration",
        "haproxy/haproxy#2135: HAProxy receiving TCP Reset from Load Balancer",
        "kubernetes/kubernetes#80298: sockets get disconnected if there is no traffic",
        "net/netfilter/ipvs/ip_vs_proto_tcp.c: tcp_timeouts",
        "RFC 9293 3.5.2: reset generation, group 1; 3.8.4: TCP keep-alives",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the first words after it", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings([
            Setting::seconds("idle-timeout", "how long the balancer keeps an idle connection", 3, 900)
                .at_most(LONGEST),
            Setting::seconds("time", "tcp_keepalive_time of both ends, the kernel's", 7, 7200)
                .at_most(Limit::JIFFIES),
            Setting::seconds("app-time", "TCP_KEEPIDLE of the arms that set it", 1, 600)
                .at_most(Limit::KEEPALIVE_OPTION),
            Setting::family(),
        ])
        .lasts(|env| longer_than(env.seconds("idle-timeout")))
        .eras([Era::every_kernel("a RST answers a segment of an unknown connection (RFC 9293 3.5.2)")])
}

/// The longer-timeout arm sets ten times as much.
const LONGEST: Limit = Limit { most: Limit::JIFFIES.most / 10, why: "longer-timeout sets ten times as much" };

/// A silence that is longer than the idle timeout.
fn longer_than(timeout: Duration) -> Duration {
    timeout + timeout / 100 + Duration::from_secs(1)
}

const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
const BACKEND: ([u8; 4], u16) = ([10, 0, 2, 2], 9000);
const TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// The service address is the balancer's own, and so is the address that the server
/// sees.
fn network(env: &Environment) -> Topology {
    let time = env.number("time");
    let network = Topology::new()
        .host("client")
        .router("balancer")
        .host("server")
        .link("client 10.0.1.2/24", "balancer 10.0.1.1/24 10.96.0.1/32")
        .link("balancer 10.0.2.1/24", "server 10.0.2.2/24")
        .rule("balancer", Rule::destination_nat("service", SERVICE, BACKEND))
        .rule("balancer", Rule::masquerade("own-address", "server"))
        .sysctl("balancer", TIMEOUT, env.number("idle-timeout"))
        .sysctl("balancer", LOOSE, 0);
    ["client", "server"]
        .into_iter()
        .fold(network, |network, end| network.sysctl(end, "net.ipv4.tcp_keepalive_time", time))
}

#[derive(Debug, Clone)]
struct Conduct {
    silence: Duration,
    first: Side,
    /// The end with SO_KEEPALIVE, and its TCP_KEEPIDLE.
    keepalive: Option<(Side, Option<Duration>)>,
    /// The client closes its idle connection, and opens another for the next request.
    closes_idle: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let (timeout, app) = (env.seconds("idle-timeout"), env.seconds("app-time"));
    let base = Conduct { silence: timeout / 2, first: Side::Client, keepalive: None, closes_idle: false };
    Arms::control("the client is silent for half of the balancer's timeout", network(env), base)
        .fault("the client is silent for longer than the balancer's timeout", |arm| {
            arm.silence = longer_than(timeout);
        })
        .variant("server-first", "the server speaks first", |arm| arm.first = Side::Server)
        .variant("balancer-drops", "the balancer drops what it does not know", |arm| {
            arm.rule("balancer", Rule::drop("unknown").on(Hook::Input).ct_state(CtState::INVALID));
        })
        .remedy("keepalive", "TCP_KEEPIDLE at the client, below the balancer's timeout", |arm| {
            arm.keepalive = Some((Side::Client, Some(app)));
        })
        .no_effect_if(app >= timeout, || too_slow(app, timeout))
        .remedy("server-keepalive", "TCP_KEEPIDLE at the server, below the balancer's timeout", |arm| {
            arm.keepalive = Some((Side::Server, Some(app)));
        })
        .no_effect_if(app >= timeout, || too_slow(app, timeout))
        .remedy(
            "keepalive-defaults",
            "SO_KEEPALIVE at the client, with the kernel's tcp_keepalive_time",
            |arm| {
                arm.keepalive = Some((Side::Client, None));
            },
        )
        .remedy("longer-timeout", "the balancer's timeout is ten times as long", |arm| {
            arm.sysctl("balancer", TIMEOUT, 10 * timeout.as_secs());
        })
        .remedy("close-idle", "the client's pool closes the idle connection", |arm| arm.closes_idle = true)
        .remedy(
            "loose",
            "the balancer is conntrack and takes up connections in the middle: nf_conntrack_tcp_loose=1",
            |arm| {
                arm.sysctl("balancer", LOOSE, 1);
            },
        )
        .in_family(env.family())
}

const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let service = stage.env.family().socket(SERVICE);
    let mut flow = Flow::open(client, service, server, BACKEND.1).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    if let Some((side, time)) = conduct.keepalive {
        flow.keep_alive(side, time, time, None)?;
    }
    if conduct.closes_idle {
        flow.close(Side::Client).await?;
        stage.pass(conduct.silence).await;
        flow = Flow::open(client, service, server, BACKEND.1).await?;
    } else {
        stage.pass(conduct.silence).await;
    }
    let balancer = Conntrack::of(stage.host("balancer").namespace())?;
    let memory = if balancer.entries()?.is_empty() { "no" } else { "yes" };

    let met = flow.say(conduct.first, PATIENCE).await?;
    let other = if conduct.first == Side::Client { server } else { client };
    let established = |s: &Socket| s.state == State::Established;
    let socket = sockets(other.namespace())?.into_iter().find(established);
    let socket = socket.map_or("none".to_owned(), |s| s.state.to_string());
    let _listener = listen(server, BACKEND.1)?;
    let again = connect(client, 0, service, PATIENCE).await?;
    stage.observe("the first words after it", met);
    stage.observe("the balancer remembers it", memory);
    stage.observe("the other end's socket", &socket);
    stage.observe("a new connection", &again);
    let (first, silence) = (conduct.first, conduct.silence.as_secs());
    stage.because(format!(
        "after {silence} s of silence the balancer remembered the connection: {memory}; the {first} spoke and met: \
         {met}; the other end's socket: {socket}; a new connect(): {again}",
        met = *met,
        again = *again
    ));
    Ok(())
}
