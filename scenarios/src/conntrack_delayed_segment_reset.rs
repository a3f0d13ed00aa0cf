//! "connection reset by peer" on a healthy service: kubernetes/kubernetes#74839.
//!
//! A node translates a service address to the server. One old segment of the
//! server's arrives late, from below the window. Up to 6.0 conntrack calls it
//! INVALID, so it is not translated back; the client resets the stranger that
//! it seems to come from, and the RST fits the server's connection. From 6.1
//! conntrack ignores such a segment: it stays part of its flow.
//!
//! It is made to happen in both ways: as networks do it, by a wire that holds a
//! segment until more than a window has passed, and as the Kubernetes
//! regression test does it, by a crafted segment 100,000 bytes below.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lab::Result;
use lab::conntrack::{Conntrack, Statistic};
use lab::probe::{Flow, Side};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::wire::Way;
use lab::wire::policy::Hold;
use lab::wire::segment::{Flags, Header, Segment};

use crate::service::{self, BACKEND, SERVICE, last_of_server, open_or};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "conntrack-delayed-segment-reset",
            title: "A segment that comes late is INVALID to conntrack, and the connection dies of it",
            family: "conntrack INVALID on long-lived flows",
            saw: "Long downloads through a service address end in \"connection reset by peer\", once in a few thousand, on \
              nodes whose network is lossy or busy. Pods that are called by their own address never see it.",
            cause: "A segment that was lost on its way and sent again arrives after all, when the window has moved on. \
                Up to 6.0 conntrack calls it INVALID (\"SEQ is under the lower bound\"): it belongs to no flow and is \
                not translated back. The client resets the stranger, and that RST fits the server's connection.",
            function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_in_window",
            cure: "Linux 6.1, which ignores such a segment and leaves it in its flow. Before: drop INVALID in forward \
               (kube-proxy since 1.15), or nf_conntrack_tcp_be_liberal=1.",
            reading: &[
                "kubernetes/kubernetes#74839, and its test: test/images/regression-issue-74839",
                "d9a6f0d0df18 netfilter: conntrack: prepare tcp_in_window for ternary return value (6.1)",
                "6e250dcbff1d netfilter: conntrack: ignore overly delayed tcp packets (6.1)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[],
        arms: &[
            Arm::control("every segment arrives in time"),
            Arm::fault("one segment is held until more than a window has passed"),
            Arm::variant("injected", "a crafted segment, 100000 bytes below the last acknowledgement"),
            Arm::remedy("drop-invalid", "the node drops INVALID packets in forward"),
            Arm::remedy("be-liberal", "nf_conntrack_tcp_be_liberal=1 on the node"),
        ],
        eras: &[
            // No feature tells: the behaviour has no switch and no counter.
            Era::new("ignored", "6.1 and later", |ground| ground.kernel.at_least(6, 1))
                .since("6e250dcbff1d ignores a segment below the window, and it stays in its flow")
                .immune(),
            Era::new("invalid", "up to 6.0", |_| true)
                .since("tcp_in_window has judged a segment below the window INVALID since 2.6.9"),
        ],
        symptom: Symptom { row: "the server's connection", healthy: "open" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// test/images/regression-issue-74839/main.go.
const BELOW: u32 = 100_000;
/// Several times the largest window that the client's buffer allows.
const MORE_THAN_A_WINDOW: usize = 400_000;
const PATIENCE: Duration = Duration::from_secs(3);

fn topology(plan: &Plan<'_>) -> Topology {
    // A small receive buffer, so that a window is soon past; up to 4.14 it is one
    // for all nodes.
    let buffer = |t: Topology, node| t.sysctl(node, "net.ipv4.tcp_rmem", "4096 32768 32768");
    ["client", "node", "server"].into_iter().fold(service::topology(plan), buffer)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let holding = Rc::new(Cell::new(false));
    let armed = Rc::clone(&holding);
    // The first segment with data that comes once it is armed, and no other.
    let (policy, held) = Hold::matching(move |way, segment| {
        way == Way::Back && !segment.payload.is_empty() && armed.replace(false)
    });
    let wire = stage.wire("node", "server", policy)?;
    let mut flow = Flow::open(stage.host("client"), SERVICE, stage.host("server"), BACKEND.1).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    let inject = stage.is("injected");
    holding.set(stage.faulty() && !inject);
    // The held segment is sent again, and the flow goes on without it.
    flow.transfer(Side::Server, MORE_THAN_A_WINDOW).await?;
    flow.settle().await?;
    if inject {
        let last = last_of_server(&wire).await?;
        let late = Header { seq: last.seq.wrapping_sub(BELOW), flags: Flags::PSH | Flags::ACK, ..last };
        let segment = Segment { header: late, payload: b"boom!!!" };
        wire.inject(Way::Back, segment.frame(stage.network().macs("server", "node"))?);
    }
    held.release();

    let server = flow.watch(Side::Server, PATIENCE).await?;
    stage.see("the server's connection", open_or(server));
    stage.see("the client's next request", flow.say(Side::Client, PATIENCE).await?);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.see("packets that were INVALID", invalid);
    stage.because(format!(
        "conntrack met a segment from below the window and counted {invalid} INVALID packet(s); the server's connection: {}",
        open_or(server),
    ));
    Ok(())
}
