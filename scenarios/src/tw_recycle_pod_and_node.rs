//! "curl from the pod works. The same curl on its node hangs. Point the pod at
//! another server, and the node works again."
//!
//! The pod is masqueraded to the node's address, so a server outside takes the
//! two for one peer. Both talk to C, which runs with net.ipv4.tcp_tw_recycle=1
//! and closes first: C remembers the newer of the two clocks, the pod's, and
//! for a minute after each of its calls drops the SYNs of the other.
//!
//! A pod shares its node's kernel, and up to 4.9 its timestamp clock. Since 4.10
//! the clock of a connection is set off by a number that depends on both
//! addresses, the pod's own and not the masqueraded one. So it began when
//! the nodes were upgraded, not the server, and which of the two hangs is
//! the toss of a coin. Here a wire sets the pod's clock an hour ahead.

use std::time::Duration;

use lab::Result;
use lab::network::Host;
use lab::probe::{Flow, Side, connect, listen};
use lab::scenario::{Arm, Card, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::Rule;
use lab::wire::Way;
use lab::wire::policy::ShiftTimestampClock;

use crate::one_address::{self, Check, HOUR, RECYCLE, TIMESTAMPS, knob, recycles};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "tw-recycle-pod-and-node",
            title: "A pod's calls to a server with tcp_tw_recycle lock its own node out",
            family: "TIME_WAIT and timestamps",
            saw: "curl from the pod works; the same curl on its node hangs; another server answers both. Point the pod \
              at the other server, and a minute later the node's curl works again.",
            cause: "The pod leaves under its node's address. The server closes first and has tcp_tw_recycle=1: it \
                remembers the pod's timestamp for the address, and for 60 s drops every SYN from it with an older \
                one. Each of the pod's calls begins the 60 s anew. The clocks of pod and node differ where their \
                kernel is 4.10 or later: each pair of addresses has an offset of its own.",
            function: "net/ipv4/tcp_input.c: tcp_conn_request; net/core/secure_seq.c: secure_tcp_ts_off",
            cure: "tcp_tw_recycle=0 on the server, at once. tcp_timestamps=2 on pod and node (no offset, 4.10 and later), \
               a client that closes first, or another server for the pod help once the last stamp has expired.",
            reading: &[
                "4396e46187ca tcp: remove tcp_tw_recycle (4.12)",
                "95a22caee396 tcp: attach random timestamp offsets (4.10)",
                "28ee1b746f49 secure_seq: downgrade to per-host timestamp offsets (4.11)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        apart: one_address::apart,
        recheck: Recheck::Replay,
        settings: one_address::SETTINGS,
        arms: &[
            Arm::control("the pod has an address of its own outside: no masquerade"),
            Arm::fault("the pod is masqueraded to its node's address"),
            Arm::remedy("recycle-off", "tcp_tw_recycle=0 on C, after the incident began")
                .only_where(recycles),
            Arm::remedy("pod-calls-d", "the pod is sent to D, likewise").only_where(recycles),
            Arm::remedy("client-closes-first", "the pod closes first, likewise").only_where(recycles),
            Arm::remedy("server-timestamps-off", "tcp_timestamps=0 on C, likewise").only_where(recycles),
            Arm::remedy("one-clock", "tcp_timestamps=2 on pod and node since they began")
                .only_where(recycles),
        ],
        eras: one_address::ERAS,
        symptom: Symptom { row: "node connects to C", healthy: "connected" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const C: ([u8; 4], u16) = ([198, 51, 100, 2], 80);
const D: ([u8; 4], u16) = ([203, 0, 113, 2], 80);
/// For two SYNs. Two in a row end within the shortest window.
const PATIENCE: Duration = Duration::from_secs(2);

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .host("pod")
        .router("node")
        .router("isp")
        .host("server-d")
        // The last, where the kernel has one knob for all.
        .host("server-c")
        .wire("pod 10.0.1.2/24", "node 10.0.1.1/24")
        .link("node 192.0.2.1/24", "isp 192.0.2.2/24")
        .wire("isp 198.51.100.1/24", "server-c 198.51.100.2/24")
        .link("isp 203.0.113.1/24", "server-d 203.0.113.2/24")
        .route("node", "default", "192.0.2.2")
        .route("isp", "10.0.1.0/24", "192.0.2.1")
        .rule_if(plan.faulty(), "node", Rule::masquerade("masquerade", "isp"))
        .sysctl_where_known("server-c", RECYCLE, knob(plan))
        // No offset but the wire's.
        .sysctl_where_known("pod", TIMESTAMPS, 2)
        .sysctl_where_known("node", TIMESTAMPS, 2)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let ahead = if stage.is("one-clock") { 0 } else { HOUR };
    stage.wire("pod", "node", ShiftTimestampClock::new(Way::There, ahead))?;
    let check = Check::of(stage, "isp", "server-c")?;
    let (pod, node) = (stage.host("pod"), stage.host("node"));
    let (c, d) = (stage.host("server-c"), stage.host("server-d"));
    let curl = async |server: &Host, at| {
        let _listener = listen(server, 80)?;
        connect(node, 0, at, PATIENCE).await
    };

    Flow::open(pod, C, c, 80).await?.close(Side::Server).await?;
    match stage.acts {
        "recycle-off" => check.recycle_off()?,
        "server-timestamps-off" => check.timestamps_off()?,
        _ => {}
    }
    let goes_on = async || match stage.acts {
        "pod-calls-d" => check.sparing(d, async || call(pod, D, d, Side::Server).await).await,
        "client-closes-first" => call(pod, C, c, Side::Client).await,
        _ => call(pod, C, c, Side::Server).await,
    };
    let at_first = curl(c, C).await?;
    let first = goes_on().await?;
    let expiry = check.expiry();
    let other = check.sparing(d, async || curl(d, D).await).await?;
    check.expired(expiry).await;

    let second = goes_on().await?;
    let expiry = check.expiry();
    stage.see("node connects to C", curl(c, C).await?);
    check.expired(expiry).await;

    stage.see("node, at first", at_first);
    stage.see("node, a minute after the pod's last call", curl(c, C).await?);
    stage.see("node connects to D", other);
    stage.see("pod connects", if first == second { first } else { format!("{first}, then {second}") });
    check.see("of the node: its timestamps were an hour behind the last one of the pod, which came from the same address")?;
    Ok(())
}

/// A call of the pod's; `first` closes first.
async fn call(pod: &Host, to: ([u8; 4], u16), server: &Host, first: Side) -> Result<String> {
    match Flow::try_open(pod, 0, to, server, 80, PATIENCE).await? {
        Ok(flow) => flow.close(first).await.map(|()| "connected".to_owned()),
        Err(met) => Ok(met.to_string()),
    }
}
