//! "connection reset by peer", on a healthy service, under load.
//!
//! A node translates a service address to the server. One segment of the
//! server's lies beyond the window: conntrack calls it INVALID, and a packet
//! that conntrack does not know is not translated back. The client gets a
//! segment from a stranger and answers with a RST, to the stranger's own
//! address; that RST is no part of a known flow either, arrives untranslated,
//! and its sequence number is right: the server's connection dies.

use std::time::Duration;

use lab::Result;
use lab::conntrack::{Conntrack, Statistic};
use lab::probe::{Flow, Side};
use lab::scenario::{Arm, Card, Era, Fault, Need, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::wire::Way;
use lab::wire::policy::Pass;
use lab::wire::segment::{Flags, Header, Segment};

use crate::service::{self, BACKEND, SERVICE, last_of_server, open_or};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "conntrack-beyond-window-reset",
            title: "A segment beyond the window is INVALID to conntrack, and the connection dies of it",
            family: "conntrack INVALID on long-lived flows",
            saw: "\"connection reset by peer\" now and then, on healthy pods behind a service address, more often under \
              load. A capture on the client shows a segment from the pod's own address, and the client's RST to it.",
            cause: "conntrack checks every segment against the window it has seen. One too far beyond it is INVALID: it \
                belongs to no flow, so the NAT does not translate it back. The client resets what it does not know, \
                and the untranslated RST fits the server's connection exactly.",
            function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_in_window",
            cure: "Drop INVALID in forward (kube-proxy: KUBE-FORWARD, since 1.15), or nf_conntrack_tcp_be_liberal=1 \
               (kube-proxy: --conntrack-tcp-be-liberal, since 1.29). Since 6.1 the kernel forgives a segment below \
               the window, and an overshoot of up to one window, not more.",
            reading: &[
                "kubernetes/kubernetes#74839",
                "kubernetes/kubernetes#74840: drop packets in INVALID state",
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
            Arm::control("no stray segment"),
            Arm::fault("one segment of the server's lies a million bytes beyond the window"),
            Arm::remedy("drop-invalid", "the node drops INVALID packets in forward"),
            Arm::remedy("be-liberal", "nf_conntrack_tcp_be_liberal=1 on the node"),
        ],
        eras: &[Era::every_kernel(
            "tcp_in_window has judged a segment beyond the window INVALID since 2.6.9",
        )],
        symptom: Symptom { row: "the server's connection", healthy: "open" },
        topology: service::topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// Beyond any window that a connection of a few bytes can have.
const BEYOND: u32 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(3);

async fn play(stage: &Stage<'_>) -> Result<()> {
    let wire = stage.wire("node", "server", Pass)?;
    let mut flow = Flow::open(stage.host("client"), SERVICE, stage.host("server"), BACKEND.1).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    // What the server would send next, but for its sequence number.
    let last = last_of_server(&wire).await?;
    if stage.faulty() {
        let stray = Header { seq: last.seq.wrapping_add(BEYOND), flags: Flags::PSH | Flags::ACK, ..last };
        let segment = Segment { header: stray, payload: b"boom!!!" };
        wire.inject(Way::Back, segment.frame(stage.network().macs("server", "node"))?);
    }

    let server = flow.watch(Side::Server, PATIENCE).await?;
    stage.see("the server's connection", open_or(server));
    let request = flow.say(Side::Client, PATIENCE).await?;
    stage.see("the client's next request", request);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.see("packets that were INVALID", invalid);
    if stage.faulty() {
        stage.because(format!(
            "conntrack met a segment {BEYOND} bytes beyond the server's last and counted {invalid} INVALID \
             packet(s); the server's connection: {}",
            open_or(server),
        ));
    }
    Ok(())
}
