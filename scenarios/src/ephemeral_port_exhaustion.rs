//! "connect: cannot assign requested address", for a minute.

use lab::evidence::sockets::{State, sockets};
use lab::prelude::*;

const CARD: Card = Card {
    name: "ephemeral-port-exhaustion",
    title: "Every source port to one destination is in TIME_WAIT: connect() fails at once",
    family: "TIME_WAIT and timestamps",
    saw: "Under load connects to one busy service fail at once, those to others work: \"dial tcp 10.0.0.2:80: \
          connect: cannot assign requested address\" (Go), \"connect() to 10.0.0.2:80 failed (99: Cannot \
          assign requested address) while connecting to upstream\" (nginx), \"[Errno 99] Cannot assign \
          requested address\" (Python). A minute after the load it is over. No counter moves, no packet is \
          sent, nothing is logged; `ss -s` shows tens of thousands of sockets in timewait.",
    cause: "connect() needs a source port that makes a new pair of addresses and ports. The side that closes \
            first keeps its pair in TIME_WAIT for 60 s, and ip_local_port_range has 28232 ports by default \
            (32768 to 60999). More than 470 connections a second to one address and port, each closed by \
            the client, use all of them; so do health probes of many pods through one service address.",
    function: "net/ipv4/inet_hashtables.c: __inet_hash_connect; net/ipv4/tcp_ipv4.c: tcp_twsk_unique",
    cure: "Keep connections and reuse them. tcp_tw_reuse=1 at the client, which takes a pair that has been in \
           TIME_WAIT for a second (both ends need timestamps; the default since 4.19, 2, is for loopback \
           only). A wider ip_local_port_range. A server that closes first. SO_LINGER 0 for a probe that \
           has nothing to lose (the kubelet's probes since 1.27 linger for one second). Not a cure: \
           tcp_fin_timeout, which is about FIN_WAIT2; TIME_WAIT is a constant (TCP_TIMEWAIT_LEN). More \
           tcp_max_tw_buckets change nothing. Fewer of them free ports, but destroy what TIME_WAIT is for.",
    reading: &[
        "kubernetes/kubernetes#89898: TCP liveness probes fail with connection timeouts",
        "kubernetes/kubernetes#115143: kubelet probes use less ports (1.27)",
        "cilium/cilium#36427: \"Cannot assign requested address\" in a proxy",
        "Documentation/networking/ip-sysctl.rst: ip_local_port_range, tcp_tw_reuse, tcp_fin_timeout, \
         tcp_max_tw_buckets",
        "include/net/tcp.h: TCP_TIMEWAIT_LEN",
        "RFC 6191: reducing the TIME-WAIT state using TCP timestamps",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the next connect()", "connected"), arms, play)
        .settings([
            Setting::number("ports", "ports in ip_local_port_range, and probes", "ports", PORTS, [64, 64]),
            Setting::family(),
        ])
        .lasts(|_| PAUSE)
        .eras([Era::every_kernel(
            "the side that closes first keeps its addresses and ports in TIME_WAIT (RFC 9293 3.6.1)",
        )])
}

const PORTS: Limit = Limit { most: 28_232, why: "these are the ports of the default, 32768 to 60999" };

const SERVER: [u8; 4] = [10, 0, 0, 2];
const RANGE: &str = "net.ipv4.ip_local_port_range";
const TW_BUCKETS: &str = "net.ipv4.tcp_max_tw_buckets";

fn network(env: &Environment) -> Topology {
    let last = 32_767 + env.number("ports");
    Topology::new()
        .hosts(["client", "server"])
        .link("client 10.0.0.1/24", "server 10.0.0.2/24")
        .sysctl("client", RANGE, format!("32768\t{last}"))
        .sysctl_where_known("client", TW_BUCKETS, 65_536)
        .sysctl_where_known("server", TW_BUCKETS, 65_536)
}

/// How a probe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ClosedByClient,
    ClosedByServer,
    /// close() with SO_LINGER 0 at the client.
    ResetByClient,
    /// All probes are requests on one connection.
    KeptOpen,
}

#[derive(Debug, Clone)]
struct Conduct {
    probes: u64,
    end: End,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let ports = env.number("ports");
    let per_namespace = env.kernel.at_least(4, 11);
    let base = Conduct { probes: ports / 2, end: End::ClosedByClient };
    Arms::control("in a minute half as many probes as the range has ports", network(env), base)
        .fault("in a minute as many probes as the range has ports", |arm| arm.probes = ports)
        .remedy("reuse-connection", "all probes use one connection", |arm| arm.end = End::KeptOpen)
        .remedy("tw-reuse", "tcp_tw_reuse=1 at the client", |arm| {
            arm.sysctl("client", "net.ipv4.tcp_tw_reuse", 1);
        })
        // 56ab6b9300d8, 1946e672c173: before, one value for the whole kernel.
        .only_where(per_namespace)
        .remedy("wider-range", "ip_local_port_range is 1024 to 65535", |arm| {
            arm.sysctl("client", RANGE, "1024\t65535");
        })
        .remedy("server-closes-first", "the server closes first", |arm| arm.end = End::ClosedByServer)
        .remedy("linger-0", "the client closes with SO_LINGER 0: a RST, no TIME_WAIT", |arm| {
            arm.end = End::ResetByClient;
        })
        .remedy("fin-timeout", "tcp_fin_timeout=15 at the client", |arm| {
            arm.sysctl("client", "net.ipv4.tcp_fin_timeout", 15);
        })
        .remedy("more-tw-buckets", "tcp_max_tw_buckets=1440000 at the client", |arm| {
            arm.sysctl("client", TW_BUCKETS, 1_440_000);
        })
        .only_where(per_namespace)
        .remedy("fewer-tw-buckets", "tcp_max_tw_buckets is half the number of ports", |arm| {
            arm.sysctl("client", TW_BUCKETS, ports / 2);
        })
        .only_where(per_namespace)
        .in_family(env.family())
}

/// Longer than tcp_tw_reuse leaves a pair in TIME_WAIT: a second, counted in whole
/// seconds (tcp_twsk_unique).
const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let [service, other] = [80, 81].map(|port| stage.env.family().socket((SERVER, port)));
    let mut kept = None;
    for _ in 0..conduct.probes {
        let mut flow = match kept.take() {
            Some(flow) => flow,
            None => Flow::open(client, service, server, 80).await?,
        };
        flow.exchange(Side::Client, PATIENCE).await?;
        match conduct.end {
            End::ClosedByClient => flow.close(Side::Client).await?,
            End::ClosedByServer => flow.close(Side::Server).await?,
            End::ResetByClient => flow.reset(Side::Client).await?,
            End::KeptOpen => kept = Some(flow),
        }
    }
    stage.pass(PAUSE).await;

    let waiting = sockets(client.namespace())?.into_iter().filter(|s| s.state == State::TimeWait).count();
    let ports = stage.env.number("ports");
    let _listeners = [listen(server, 80)?, listen(server, 81)?];
    let next = connect(client, 0, service, PATIENCE).await?;
    stage.observe("the next connect()", &next);
    let elsewhere = connect(client, 0, other, PATIENCE).await?;
    stage.observe("a connect() to another port", &elsewhere);
    // With tcp_tw_reuse the number depends on how long the probes took.
    stage.observe("the client's TIME_WAITs", if waiting == 0 { "none" } else { "some" });
    let counted = stage.counters("client")?.telling().to_string();
    stage.because(format!(
        "{waiting} sockets of the client were in TIME_WAIT, {ports} ports in its range; connect() to port 80: {next}, \
         to port 81: {elsewhere}; counted: {counted}",
        next = *next,
        elsewhere = *elsewhere
    ));
    Ok(())
}
