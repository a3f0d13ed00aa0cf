//! "curl from the pod works. The same curl on its node hangs. Point the pod at
//! another server, and the node works again."
//!
//! Up to 4.9 a pod shares its node's timestamp clock. Since 4.10 an offset
//! depends on both addresses of a connection, so it is a matter of chance which
//! of the two hangs. Here a wire sets the pod's clock ahead.

use lab::prelude::*;

use crate::one_address::{self, Check, Measure, RECYCLE, TICKS_APART, TIMESTAMPS, knob, recycles};

const CARD: Card = Card {
    name: "tw-recycle-pod-and-node",
    title: "A pod's calls to a server with tcp_tw_recycle lock its own node out",
    family: "TIME_WAIT and timestamps",
    saw: "curl from the pod works; the same curl on its node hangs; another server answers both. Point the \
          pod at the other server, and a minute later the node's curl works again.",
    cause: "The pod leaves under its node's address. The server closes first and has tcp_tw_recycle=1: it \
            remembers the pod's timestamp for the address, and for 60 s drops every SYN from it with an \
            older one. Each of the pod's calls begins the 60 s anew. The clocks of pod and node differ where \
            their kernel is 4.10 or later: each pair of addresses has an offset of its own.",
    function: "net/ipv4/tcp_input.c: tcp_conn_request; net/core/secure_seq.c: secure_tcp_ts_off",
    cure: "tcp_tw_recycle=0 on the server, at once. tcp_timestamps=2 on pod and node (no offset, 4.10 and \
           later), a client that closes first, or another server for the pod help once the last stamp has \
           expired. tcp_timestamps=0 on the server does too, but on 3.17 to 4.11 and RHEL 7 it locks the pod \
           out as well until then.",
    reading: &[
        "4396e46187ca tcp: remove tcp_tw_recycle (4.12)",
        "95a22caee396 tcp: attach random timestamp offsets (4.10)",
        "28ee1b746f49 secure_seq: downgrade to per-host timestamp offsets (4.11)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("node connects to C", "connected"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .sequential(one_address::sequential)
        .lasts(|env| 3 * env.seconds("paws-window"))
        .settings(one_address::SETTINGS)
        .eras(one_address::ERAS)
}

const C: ([u8; 4], u16) = ([198, 51, 100, 2], 80);
const D: ([u8; 4], u16) = ([203, 0, 113, 2], 80);

fn network(env: &Environment) -> Topology {
    Topology::new()
        .host("pod")
        .router("node")
        .router("isp")
        .host("server-d")
        // Configured last, in case the kernel has one global sysctl.
        .host("server-c")
        .wire("pod 10.0.1.2/24", "node 10.0.1.1/24")
        .link("node 192.0.2.1/24", "isp 192.0.2.2/24")
        .wire("isp 198.51.100.1/24", "server-c 198.51.100.2/24")
        .link("isp 203.0.113.1/24", "server-d 203.0.113.2/24")
        .route("node", "default", "192.0.2.2")
        .route("isp", "10.0.1.0/24", "192.0.2.1")
        .sysctl_where_known("server-c", RECYCLE, knob(env))
        // No offset except the wire's.
        .sysctl_where_known("pod", TIMESTAMPS, 2)
        .sysctl_where_known("node", TIMESTAMPS, 2)
}

#[derive(Debug, Clone)]
struct Conduct {
    /// How far the pod's timestamps are ahead of the node's, in ticks.
    pod_ahead: u32,
    /// What the administrator does after the pod's first connection.
    measure: Measure,
    /// The server that the pod connects to from then on, and the side that
    /// closes first.
    pod_calls: &'static str,
    first_to_close: Side,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let base = Conduct {
        pod_ahead: TICKS_APART,
        measure: Measure::None,
        pod_calls: "server-c",
        first_to_close: Side::Server,
    };
    Arms::control("the pod has an address of its own outside: no masquerade", network(env), base)
        .fault("the pod is masqueraded to its node's address", |arm| {
            arm.rule("node", Rule::masquerade("masquerade", "isp"));
        })
        .rest_only_where(recycles(env))
        .remedy("recycle-off", "tcp_tw_recycle=0 on C, after the incident began", |arm| {
            arm.measure = Measure::RecycleOff;
        })
        .remedy("pod-calls-d", "the pod is sent to D, after it began", |arm| {
            arm.pod_calls = "server-d";
        })
        .remedy("client-closes-first", "the pod closes first, after it began", |arm| {
            arm.first_to_close = Side::Client;
        })
        .remedy("server-timestamps-off", "tcp_timestamps=0 on C, after it began", |arm| {
            arm.measure = Measure::TimestampsOff;
        })
        .remedy("one-clock", "tcp_timestamps=2 on pod and node since they began", |arm| {
            arm.pod_ahead = 0;
        })
}

/// Long enough for two SYNs. Two such waits fit in the shortest window.
const PATIENCE: Duration = Duration::from_secs(2);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    stage.wire("pod", "node", policy::ShiftTimestampClock::new(Direction::There, conduct.pod_ahead))?;
    let check = Check::of(stage, "isp", "server-c")?;
    let (pod, node) = (stage.host("pod"), stage.host("node"));
    let (c, d) = (stage.host("server-c"), stage.host("server-d"));
    let curl = async |server: &Host, at| {
        let _listener = listen(server, 80)?;
        connect(node, 0, at, PATIENCE).await
    };

    Flow::open(pod, C, c, 80).await?.close(Side::Server).await?;
    check.take(conduct.measure)?;
    let first = conduct.first_to_close;
    let goes_on = async || match conduct.pod_calls {
        "server-d" => check.sparing(d, async || call(pod, D, d, first).await).await,
        _ => call(pod, C, c, first).await,
    };
    let at_first = curl(c, C).await?;
    let first_call = goes_on().await?;
    let expiry = check.expiry();
    let other = check.sparing(d, async || curl(d, D).await).await?;
    check.expired(expiry).await;

    let second_call = goes_on().await?;
    let expiry = check.expiry();
    stage.observe("node connects to C", curl(c, C).await?);
    check.expired(expiry).await;

    stage.observe("node, at first", at_first);
    stage.observe("node, a minute after the pod's last call", curl(c, C).await?);
    stage.observe("node connects to D", other);
    let same = first_call == second_call;
    stage
        .observe("pod connects", if same { first_call } else { format!("{first_call}, then {second_call}") });
    check.see("the node")
}

/// Opens a connection from the pod and closes it, the side `first` first.
/// Returns the cell.
async fn call(pod: &Host, to: ([u8; 4], u16), server: &Host, first: Side) -> Result<String> {
    match Flow::try_open(pod, 0, to, server, 80, PATIENCE).await? {
        Ok(flow) => flow.close(first).await.map(|()| "connected".to_owned()),
        Err(met) => Ok(met.to_string()),
    }
}
