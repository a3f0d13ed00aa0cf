//! "The long-lived connection dies when it is used again after a quiet week."

use lab::prelude::*;

use crate::keepalive::too_slow;
use crate::service::{self, LOOSE};

const CARD: Card = Card {
    name: "conntrack-idle-expiry",
    title: "A quiet connection through NAT is forgotten, and dies when it speaks again",
    family: "conntrack INVALID on long-lived flows",
    saw: "The database connection that was idle over the long weekend gets \"connection reset by peer\" on \
          the first byte on Monday, or hangs until TCP gives up. Nothing was restarted.",
    cause: "A flow that is idle for nf_conntrack_tcp_timeout_established (432000 s, five days; kube-proxy \
            sets 86400 s) is deleted, and its translation with it. Who speaks first decides: the client's \
            segment is picked up as a new flow and translated again (tcp_loose=1) or not (0); the server's \
            is not translated back, and the client resets it.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_new, nf_conntrack_tcp_packet",
    cure: "TCP keepalive with a time below the timeout, or a longer timeout. Dropping INVALID does not help: \
           with tcp_loose=1 the server's segment is a new flow, not an INVALID one.",
    reading: &[
        "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_tcp_timeout_established, nf_conntrack_tcp_loose",
        "kubernetes: kube-proxy --conntrack-tcp-timeout-established (24 h)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the first words after it", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .settings([
            Setting::seconds("established", "nf_conntrack_tcp_timeout_established on the node", 4, 432_000)
                .at_most(LONGEST),
            Setting::seconds("keepalive-time", "tcp_keepalive_time of the keepalive arm", 1, 600)
                .at_most(Limit::JIFFIES),
            Setting::family(),
        ])
        .lasts(|env| longer_than(env.seconds("established")))
        .eras([Era::every_kernel("a NAT must forget, and conntrack does so by time")])
}

/// The longer-timeout arm sets a longer timeout, which the kernel must accept;
/// the silence is longer than the one and shorter than the other.
const LONGEST: Limit = Limit {
    most: 2_000_000,
    why: "the longer-timeout arm needs a longer one, and at HZ=1000 the kernel takes at most 2147483",
};

/// A silence that is longer than the timeout.
fn longer_than(timeout: Duration) -> Duration {
    timeout + timeout / 100 + Duration::from_secs(1)
}

const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

fn network(env: &Environment) -> Topology {
    let time = env.number("keepalive-time");
    service::network()
        // The server does not forward: it drops what the node does not translate.
        .route("node", "default", "10.0.2.2")
        .sysctl("node", ESTABLISHED, env.number("established"))
        .sysctl("node", LOOSE, 1)
        .sysctl("client", "net.ipv4.tcp_keepalive_time", time)
        .sysctl("client", "net.ipv4.tcp_keepalive_intvl", time)
}

#[derive(Debug, Clone)]
struct Conduct {
    silence: Duration,
    first: Side,
    client_keepalive: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let (timeout, keepalive) = (env.seconds("established"), env.seconds("keepalive-time"));
    let base = Conduct { silence: timeout / 4, first: Side::Server, client_keepalive: false };
    let arms = Arms::control("the silence is a quarter of the timeout", network(env), base)
        .fault("the silence is longer than the timeout; the server speaks first", |arm| {
            arm.silence = longer_than(timeout);
        })
        .variant("client-first", "the client speaks first", |arm| arm.first = Side::Client)
        .variant("client-first-not-loose", "the client speaks first, nf_conntrack_tcp_loose=0", |arm| {
            arm.first = Side::Client;
            arm.sysctl("node", LOOSE, 0);
        })
        .variant("server-first-not-loose", "the server speaks first, nf_conntrack_tcp_loose=0", |arm| {
            arm.sysctl("node", LOOSE, 0);
        })
        .remedy("keepalive", "SO_KEEPALIVE at the client, with a time below the timeout", |arm| {
            arm.client_keepalive = true;
        })
        .no_effect_if(keepalive >= timeout, || too_slow(keepalive, timeout))
        .remedy("longer-timeout", "nf_conntrack_tcp_timeout_established is ten times as long", |arm| {
            // At HZ=1000 the kernel refuses ten times the default.
            let longer = (10 * timeout.as_secs()).min(Limit::JIFFIES.most);
            arm.sysctl("node", ESTABLISHED, longer);
        });
    service::drop_invalid(arms).in_family(env.family())
}

const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    stage.wire("node", "server", policy::Pass)?;
    let mut flow = service::open(stage).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    if conduct.client_keepalive {
        flow.keep_alive(Side::Client, None, None, None)?;
    }
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;

    stage.pass(conduct.silence).await;
    let remembered = !node.entries()?.is_empty();
    stage.observe("the node remembers the flow", if remembered { "yes" } else { "no" });
    let met = flow.say(conduct.first, PATIENCE).await?;
    stage.observe("the first words after it", met);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.observe("INVALID packets", if invalid == 0 { "none" } else { "some" });
    let (silence, first) = (conduct.silence.as_secs(), conduct.first);
    let memory = if remembered { "still knew the flow" } else { "had forgotten the flow" };
    stage.because(format!(
        "after {silence} s of silence the node {memory}; the {first} spoke and met: {met} ({invalid} INVALID packets)",
        met = *met
    ));
    Ok(())
}
