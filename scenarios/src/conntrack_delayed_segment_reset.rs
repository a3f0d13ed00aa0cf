//! "connection reset by peer" on a healthy service: kubernetes/kubernetes#74839.
//!
//! The fault delays a segment, as networks do: a wire holds it until the flow
//! has advanced by more than a window. The variant crafts a segment, as the
//! Kubernetes test does.

use std::cell::Cell;
use std::rc::Rc;

use lab::prelude::*;

use crate::service::{self, open_or};

const CARD: Card = Card {
    name: "conntrack-delayed-segment-reset",
    title: "A segment that comes late is INVALID to conntrack, and the connection dies of it",
    family: "conntrack INVALID on long-lived flows",
    saw: "Long downloads through a service address end in \"connection reset by peer\", once in a few \
          thousand, on nodes whose network is lossy or busy. Pods that are called by their own address never \
          see it.",
    cause: "A segment that was lost on its way and sent again arrives after all, when the window has moved \
            on. Up to 6.0 conntrack calls it INVALID (\"SEQ is under the lower bound\"): it belongs to no \
            flow and is not translated back. The client resets the stranger, and that RST fits the server's \
            connection.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_in_window",
    cure: "Linux 6.1, which ignores such a segment and leaves it in its flow. Before: drop INVALID in \
           forward (kube-proxy since 1.15), or nf_conntrack_tcp_be_liberal=1.",
    reading: &[
        "kubernetes/kubernetes#74839, and its test: test/images/regression-issue-74839",
        "d9a6f0d0df18 netfilter: conntrack: prepare tcp_in_window for ternary return value (6.1)",
        "6e250dcbff1d netfilter: conntrack: ignore overly delayed tcp packets (6.1)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the server's connection", "open"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .eras([
            // No feature distinguishes the kernels: the behaviour has no switch and
            // no counter.
            Era::new("ignored", "6.1 and later", |env| env.kernel.at_least(6, 1))
                .since("6e250dcbff1d ignores a segment below the window, and it stays in its flow")
                .immune(),
            Era::new("invalid", "up to 6.0", |_| true)
                .since("tcp_in_window has judged a segment below the window INVALID since 2.6.9"),
        ])
}

/// A small receive buffer, so that the flow soon exceeds the window. Up to 4.14
/// the sysctl applies to all nodes.
fn network() -> Topology {
    let buffer = |t: Topology, node| t.sysctl(node, "net.ipv4.tcp_rmem", "4096 32768 32768");
    ["client", "node", "server"].into_iter().fold(service::network(), buffer)
}

/// How one of the server's segments arrives below the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// No segment does.
    Never,
    /// The wire holds a segment.
    Held,
    /// A segment is crafted, this many bytes below the last one.
    Crafted(u32),
}

fn arms() -> Arms<Late> {
    let arms = Arms::control("every segment arrives in time", network(), Late::Never)
        .fault("one segment is held until more than a window has passed", |arm| arm.conduct = Late::Held)
        // test/images/regression-issue-74839/main.go.
        .variant("injected", "a crafted segment, 100000 bytes below the last acknowledgement", |arm| {
            arm.conduct = Late::Crafted(100_000);
        });
    service::be_liberal(service::drop_invalid(arms))
}

/// Several times the largest window that the client's buffer allows.
const MORE_THAN_A_WINDOW: usize = 400_000;
const PATIENCE: Duration = Duration::from_secs(3);

async fn play(stage: &Stage<'_>, late: &Late) -> Result<()> {
    // Once `holding` is set, the wire holds the next segment with data, and
    // only that one.
    let holding = Rc::new(Cell::new(false));
    let armed = Rc::clone(&holding);
    let (policy, held) = policy::Hold::matching(move |direction, segment| {
        direction == Direction::Back && !segment.payload.is_empty() && armed.replace(false)
    });
    let wire = stage.wire("node", "server", policy)?;
    let mut flow = service::open(stage).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    holding.set(*late == Late::Held);
    // The server retransmits the held segment, so the transfer completes
    // without it.
    flow.transfer(Side::Server, MORE_THAN_A_WINDOW).await?;
    flow.settle().await?;
    if let Late::Crafted(below) = late {
        service::inject(stage, &wire, below.wrapping_neg()).await?;
    }
    held.release();

    let met = flow.watch(Side::Server, PATIENCE).await?;
    let server = open_or(*met);
    stage.observe_of(&met, "the server's connection", &server);
    stage.observe("the client's next request", flow.say(Side::Client, PATIENCE).await?);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.observe("packets that were INVALID", invalid);
    stage
        .because(format!("conntrack counted {invalid} INVALID packet(s); the server's connection: {server}"));
    Ok(())
}
