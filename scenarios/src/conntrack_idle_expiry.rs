//! "The long-lived connection dies when it is used again after a quiet week."
//!
//! A node translates a service address to the server. The flow is idle for
//! longer than nf_conntrack_tcp_timeout_established, the node forgets it, and
//! what happens next depends on who speaks first and on nf_conntrack_tcp_loose:
//! the client's words are picked up and translated anew; the server's go out
//! untranslated and the client resets a stranger. No packet is INVALID in that,
//! so a rule against INVALID does not help.

use std::time::Duration;

use lab::Result;
use lab::conntrack::{Conntrack, Statistic};
use lab::probe::{Flow, Side};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::wire::policy::Pass;

use crate::service::{self, BACKEND, SERVICE};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "conntrack-idle-expiry",
            title: "A quiet connection through NAT is forgotten, and dies when it speaks again",
            family: "conntrack INVALID on long-lived flows",
            saw: "The database connection that was idle over the long weekend gets \"connection reset by peer\" on the \
              first byte on Monday, or hangs until TCP gives up. Nothing was restarted.",
            cause: "A flow that is idle for nf_conntrack_tcp_timeout_established (432000 s, five days; kube-proxy sets \
                86400 s) is deleted, and its translation with it. Who speaks first decides: the client's segment \
                is picked up as a new flow and translated again (tcp_loose=1) or not (0); the server's is not \
                translated back, and the client resets it.",
            function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_new, nf_conntrack_tcp_packet",
            cure: "TCP keepalive with a time below the timeout, or a longer timeout. Dropping INVALID does not help: \
               with tcp_loose=1 the server's segment is a new flow, not an INVALID one.",
            reading: &[
                "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_tcp_timeout_established, nf_conntrack_tcp_loose",
                "kubernetes: kube-proxy --conntrack-tcp-timeout-established (24 h)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[
            Setting::seconds("established", "nf_conntrack_tcp_timeout_established on the node", 4, 432_000),
            Setting::seconds("keepalive-time", "tcp_keepalive_time of the keepalive arm", 1, 600),
        ],
        arms: &[
            Arm::control("the silence is a quarter of the timeout"),
            Arm::fault("the silence is longer than the timeout; the server speaks first"),
            Arm::variant("client-first", "the client speaks first"),
            Arm::variant("client-first-not-loose", "the client speaks first, nf_conntrack_tcp_loose=0"),
            Arm::variant("server-first-not-loose", "the server speaks first, nf_conntrack_tcp_loose=0"),
            Arm::remedy("keepalive", "SO_KEEPALIVE at the client, with a time below the timeout"),
            Arm::remedy("longer-timeout", "nf_conntrack_tcp_timeout_established is ten times as long"),
            Arm::remedy("drop-invalid", "the node drops INVALID packets in forward"),
        ],
        eras: &[Era::every_kernel("a NAT must forget, and conntrack does so by time")],
        symptom: Symptom { row: "the first words after it", healthy: "received" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    let timeout = plan.ground.number("established") * if plan.is("longer-timeout") { 10 } else { 1 };
    let loose = u8::from(!plan.acts.ends_with("not-loose"));
    let time = plan.ground.number("keepalive-time");
    service::topology(plan)
        // What the node does not translate comes to one who is no router.
        .route("node", "default", "10.0.2.2")
        .sysctl("node", "net.netfilter.nf_conntrack_tcp_timeout_established", timeout)
        .sysctl("node", "net.netfilter.nf_conntrack_tcp_loose", loose)
        .sysctl("client", "net.ipv4.tcp_keepalive_time", time)
        .sysctl("client", "net.ipv4.tcp_keepalive_intvl", time)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    stage.wire("node", "server", Pass)?;
    let mut flow = Flow::open(stage.host("client"), SERVICE, stage.host("server"), BACKEND.1).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    if stage.is("keepalive") {
        flow.keep_alive(Side::Client, None, None, None)?;
    }
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    let timeout = stage.ground.seconds("established");
    let silence = if stage.faulty() { timeout + timeout / 100 + Duration::from_secs(1) } else { timeout / 4 };
    stage.pass(silence).await;
    let remembered = !node.entries()?.is_empty();
    stage.see("the node remembers the flow", if remembered { "yes" } else { "no" });

    let speaker = if stage.acts.starts_with("client-first") { Side::Client } else { Side::Server };
    let met = flow.say(speaker, PATIENCE).await?;
    stage.see("the first words after it", met);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.see("INVALID packets", if invalid == 0 { "none" } else { "some" });
    if stage.faulty() {
        let speaker = if speaker == Side::Client { "client" } else { "server" };
        let memory = if remembered { "still knew the flow" } else { "had forgotten the flow" };
        stage.because(format!(
            "after {} s of silence the node {memory}; the {speaker} spoke and met: {met} ({invalid} INVALID packets)",
            silence.as_secs()
        ));
    }
    Ok(())
}
