//! "The report takes two minutes to compute, and its second half never comes."
//!
//! A client sends its request and closes its side (shutdown(SHUT_WR)), as HTTP
//! allows; the server reads to the end, answers, pauses, and goes on. A node
//! that translates between them has seen a FIN and its ACK: to its conntrack
//! the flow is in CLOSE_WAIT, for which nf_conntrack_tcp_timeout_close_wait
//! allows 60 s of silence, not five days. After it the rest of the answer leaves
//! untranslated, and the client resets a stranger and goes on waiting.

use std::time::Duration;

use lab::Result;
use lab::conntrack::{Conntrack, Statistic};
use lab::probe::{Answer, Flow, Side};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;

use crate::service::{self, BACKEND, SERVICE, open_or};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "conntrack-close-wait-expiry",
            title: "A client that closed its side early never gets the rest of a slow answer",
            family: "conntrack INVALID on long-lived flows",
            saw: "A slow answer stops in the middle when the server pauses for more than a minute. The client waits for \
              ever in FIN_WAIT2, the server gets \"broken pipe\". Only clients that shut down their sending side \
              after the request are hit, and only through the service address.",
            cause: "The client's FIN and the server's ACK put the node's conntrack entry into CLOSE_WAIT, where \
                nf_conntrack_tcp_timeout_close_wait (60 s) replaces the five days of ESTABLISHED. A half-closed \
                connection may be silent for longer; the entry may not. What the server sends then is not translated \
                back, and the client's RST kills the server's connection, not the client's.",
            function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_conntracks, tcp_timeouts",
            cure: "nf_conntrack_tcp_timeout_close_wait=3600, as kube-proxy sets it; TCP keepalive below the timeout at \
               either side, whose probes refresh an entry in CLOSE_WAIT too; a client that closes its side only when \
               it has the answer. Dropping INVALID does not help: with tcp_loose=1 the server's segment is a new \
               flow, not an INVALID one.",
            reading: &[
                "RFC 9293 3.6: closing a connection, half-closed",
                "RFC 5382 5: the transitory connection idle-timeout of a NAT, REQ-5",
                "kubernetes: kube-proxy --conntrack-tcp-timeout-close-wait (1 h)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[
            Setting::seconds("close-wait", "nf_conntrack_tcp_timeout_close_wait on the node", 2, 60),
            Setting::seconds("close-wait-kube-proxy", "the same as kube-proxy sets it", 20, 3600),
            Setting::seconds("keepalive-time", "tcp_keepalive_time of the keepalive arms", 1, 30),
        ],
        arms: &[
            Arm::control("the server pauses for half as long as the timeout"),
            Arm::fault("the server pauses for longer than the timeout"),
            Arm::variant("server-trickles", "the server sends a little whenever half the timeout has passed"),
            Arm::variant("not-loose", "nf_conntrack_tcp_loose=0 on the node"),
            Arm::remedy("close-wait-3600", "nf_conntrack_tcp_timeout_close_wait=3600, as kube-proxy sets it"),
            Arm::remedy("client-keepalive", "SO_KEEPALIVE at the client, with a time below the timeout"),
            Arm::remedy("server-keepalive", "SO_KEEPALIVE at the server, with a time below the timeout"),
            Arm::remedy("no-half-close", "the client closes its side when it has the answer"),
            Arm::remedy("drop-invalid", "the node drops INVALID packets in forward"),
        ],
        eras: &[Era::every_kernel("a flow that has begun to close is forgotten sooner")],
        symptom: Symptom { row: "the rest of the answer", healthy: "received" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    let timeout = if plan.is("close-wait-3600") { "close-wait-kube-proxy" } else { "close-wait" };
    let time = plan.ground.number("keepalive-time");
    service::unwired(plan)
        .sysctl("node", "net.netfilter.nf_conntrack_tcp_timeout_close_wait", plan.ground.number(timeout))
        .sysctl("node", "net.netfilter.nf_conntrack_tcp_loose", u8::from(!plan.is("not-loose")))
        .sysctl("client", "net.ipv4.tcp_keepalive_time", time)
        .sysctl("client", "net.ipv4.tcp_keepalive_intvl", time)
        .sysctl("server", "net.ipv4.tcp_keepalive_time", time)
        .sysctl("server", "net.ipv4.tcp_keepalive_intvl", time)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let mut flow = Flow::open(stage.host("client"), SERVICE, stage.host("server"), BACKEND.1).await?;
    flow.say(Side::Client, PATIENCE).await?;
    if !stage.is("no-half-close") {
        flow.half_close(Side::Client).await?;
    }
    match stage.acts {
        "client-keepalive" => flow.keep_alive(Side::Client, None, None, None)?,
        "server-keepalive" => flow.keep_alive(Side::Server, None, None, None)?,
        _ => {}
    }
    flow.deliver(Side::Server, PATIENCE).await?;
    flow.settle().await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    let timeout = stage.ground.seconds("close-wait");
    if stage.is("server-trickles") {
        for _ in 0..3 {
            stage.pass(timeout / 2).await;
            flow.deliver(Side::Server, PATIENCE).await?;
        }
    } else {
        let longer = timeout + timeout / 10 + Duration::from_secs(1);
        stage.pass(if stage.faulty() { longer } else { timeout / 2 }).await;
    }
    let entry = node.entries()?.first().and_then(|e| e.tcp_state).map(|state| state.to_string());
    let entry = entry.unwrap_or_else(|| "none".to_owned());

    let rest = flow.deliver(Side::Server, PATIENCE).await?;
    stage.see("the rest of the answer", if rest == Answer::Received { "received" } else { "never arrives" });
    stage.see(
        "the client's recv()",
        if rest == Answer::Nothing { "waits".to_owned() } else { rest.to_string() },
    );
    let server = flow.ended(Side::Server)?;
    stage.see("the server's connection", open_or(server));
    stage.see("the node's entry before it", &entry);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.see("INVALID packets", if invalid == 0 { "none" } else { "some" });
    if stage.faulty() {
        stage.because(format!(
            "when the server went on, the node's entry was: {entry}; the client met: {rest}, the server: {server} \
             ({invalid} INVALID packets)"
        ));
    }
    Ok(())
}
