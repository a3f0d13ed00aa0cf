//! "connection reset by peer", on a healthy service, under load.

use lab::prelude::*;

use crate::service::{self, open_or};

const CARD: Card = Card {
    name: "conntrack-beyond-window-reset",
    title: "A segment beyond the window is INVALID to conntrack, and the connection dies of it",
    family: "conntrack INVALID on long-lived flows",
    saw: "\"connection reset by peer\" now and then, on healthy pods behind a service address, more often \
          under load. A capture on the client shows a segment from the pod's own address, and the client's \
          RST to it.",
    cause: "conntrack checks every segment against the window it has seen. One too far beyond it is INVALID: \
            it belongs to no flow, so the NAT does not translate it back. The client resets what it does not \
            know, and the untranslated RST fits the server's connection exactly.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_in_window",
    cure: "Drop INVALID in forward (kube-proxy: KUBE-FORWARD, since 1.15), or nf_conntrack_tcp_be_liberal=1 \
           (kube-proxy: --conntrack-tcp-be-liberal, since 1.29). Since 6.1 the kernel forgives a segment \
           below the window, and an overshoot of up to one window, not more.",
    reading: &[
        "kubernetes/kubernetes#74839",
        "kubernetes/kubernetes#74840: drop packets in INVALID state",
        "d9a6f0d0df18 netfilter: conntrack: prepare tcp_in_window for ternary return value (6.1)",
        "6e250dcbff1d netfilter: conntrack: ignore overly delayed tcp packets (6.1)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the server's connection", "open"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .eras([Era::every_kernel("tcp_in_window has judged a segment beyond the window INVALID since 2.6.9")])
}

#[derive(Debug, Clone)]
struct Conduct {
    /// How many bytes beyond the server's last segment the injected one lies.
    stray: Option<u32>,
}

fn arms() -> Arms<Conduct> {
    let arms = Arms::control("no stray segment", service::network(), Conduct { stray: None })
        // Beyond any window that a connection of a few bytes can have.
        .fault("one segment of the server's lies a million bytes beyond the window", |arm| {
            arm.stray = Some(1_000_000);
        });
    service::be_liberal(service::drop_invalid(arms))
}

const PATIENCE: Duration = Duration::from_secs(3);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let wire = stage.wire("node", "server", policy::Pass)?;
    let mut flow = service::open(stage).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;
    if let Some(beyond) = conduct.stray {
        service::inject(stage, &wire, beyond).await?;
    }

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
