//! "The report takes two minutes to compute, and its second half never comes."

use lab::prelude::*;

use crate::keepalive::too_slow;
use crate::service::{self, LOOSE, open_or};

const CARD: Card = Card {
    name: "conntrack-close-wait-expiry",
    title: "A client that closed its side early never gets the rest of a slow answer",
    family: "conntrack INVALID on long-lived flows",
    saw: "A slow answer stops in the middle when the server pauses for more than a minute. The client waits \
          for ever in FIN_WAIT2, the server gets \"broken pipe\". Only clients that shut down their sending \
          side after the request are hit, and only through the service address.",
    cause: "The client's FIN and the server's ACK put the node's conntrack entry into CLOSE_WAIT, where \
            nf_conntrack_tcp_timeout_close_wait (60 s) replaces the five days of ESTABLISHED. A half-closed \
            connection may be silent for longer; the entry may not. What the server sends then is not \
            translated back, and the client's RST kills the server's connection, not the client's.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_conntracks, tcp_timeouts",
    cure: "nf_conntrack_tcp_timeout_close_wait=3600, as kube-proxy sets it; TCP keepalive below the timeout \
           at either side, whose probes refresh an entry in CLOSE_WAIT too; a client that closes its side \
           only when it has the answer. Dropping INVALID does not help: with tcp_loose=1 the server's \
           segment is a new flow, not an INVALID one.",
    reading: &[
        "RFC 9293 3.6: closing a connection, half-closed",
        "RFC 5382 5: the transitory connection idle-timeout of a NAT, REQ-5",
        "kubernetes: kube-proxy --conntrack-tcp-timeout-close-wait (1 h)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the rest of the answer", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings([
            Setting::seconds("close-wait", "nf_conntrack_tcp_timeout_close_wait on the node", 2, 60)
                .at_most(Limit::JIFFIES),
            Setting::seconds("close-wait-kube-proxy", "the same in the close-wait-3600 arm", 20, 3600)
                .at_most(Limit::JIFFIES),
            Setting::seconds("keepalive-time", "tcp_keepalive_time of the keepalive arms", 1, 30)
                .at_most(Limit::JIFFIES),
            Setting::seconds("pause", "how long the server pauses; by default longer than close-wait", 3, 67)
                .following("close-wait", |timeout| timeout + timeout / 10 + 1),
        ])
        // A server that trickles pauses for half the timeout, three times.
        .lasts(|env| env.seconds("pause").max(env.seconds("close-wait") * 3 / 2))
        .eras([Era::every_kernel("a flow that has begun to close is forgotten sooner")])
}

const CLOSE_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";

fn network(env: &Environment) -> Topology {
    let time = env.number("keepalive-time");
    ["client", "server"].into_iter().fold(
        service::unwired().sysctl("node", CLOSE_WAIT, env.number("close-wait")).sysctl("node", LOOSE, 1),
        |network, end| {
            let network = network.sysctl(end, "net.ipv4.tcp_keepalive_time", time);
            network.sysctl(end, "net.ipv4.tcp_keepalive_intvl", time)
        },
    )
}

#[derive(Debug, Clone)]
struct Conduct {
    client_closes_its_side: bool,
    keepalive: Option<Side>,
    /// The number of pauses in the server's response, and the length of each.
    pauses: u32,
    pause: Duration,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let (timeout, pause) = (env.seconds("close-wait"), env.seconds("pause"));
    let (longer, keepalive) = (env.seconds("close-wait-kube-proxy"), env.seconds("keepalive-time"));
    let short = |timeout: Duration| {
        format!("a pause of {} s is longer than a timeout of {} s", pause.as_secs(), timeout.as_secs())
    };
    let base = Conduct { client_closes_its_side: true, keepalive: None, pauses: 1, pause: timeout / 2 };
    let arms = Arms::control("the server pauses for half as long as the timeout", network(env), base)
        .fault("the server pauses for longer than the timeout", |arm| {
            arm.pause = pause;
        })
        .no_effect_if(pause <= timeout, || {
            let (pause, timeout) = (pause.as_secs(), timeout.as_secs());
            format!("a timeout of {timeout} s is long enough for a pause of {pause} s")
        })
        .variant("server-trickles", "the server sends a little whenever half the timeout has passed", |arm| {
            (arm.pauses, arm.pause) = (3, timeout / 2);
        })
        .variant("not-loose", "nf_conntrack_tcp_loose=0 on the node", |arm| arm.sysctl("node", LOOSE, 0))
        .remedy("close-wait-3600", "nf_conntrack_tcp_timeout_close_wait=3600, as kube-proxy sets it", |arm| {
            arm.sysctl("node", CLOSE_WAIT, longer.as_secs());
        })
        .no_effect_if(pause > longer, || short(longer))
        .remedy("client-keepalive", "SO_KEEPALIVE at the client, with a time below the timeout", |arm| {
            arm.keepalive = Some(Side::Client);
        })
        .no_effect_if(keepalive >= timeout, || too_slow(keepalive, timeout))
        .remedy("server-keepalive", "SO_KEEPALIVE at the server, with a time below the timeout", |arm| {
            arm.keepalive = Some(Side::Server);
        })
        .no_effect_if(keepalive >= timeout, || too_slow(keepalive, timeout))
        .remedy("no-half-close", "the client closes its side when it has the answer", |arm| {
            arm.client_closes_its_side = false;
        });
    service::drop_invalid(arms)
}

const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let mut flow = service::open(stage).await?;
    flow.say(Side::Client, PATIENCE).await?;
    if conduct.client_closes_its_side {
        flow.half_close(Side::Client).await?;
    }
    if let Some(side) = conduct.keepalive {
        flow.keep_alive(side, None, None, None)?;
    }
    flow.deliver(Side::Server, PATIENCE).await?;
    flow.settle().await?;
    let node = Conntrack::of(stage.host("node").namespace())?;
    let before = node.stats()?;
    stage.pass(conduct.pause).await;
    for _ in 1..conduct.pauses {
        flow.deliver(Side::Server, PATIENCE).await?;
        stage.pass(conduct.pause).await;
    }
    let entry = node.entries()?.first().and_then(|e| e.tcp_state).map(|state| state.to_string());
    let entry = entry.unwrap_or_else(|| "none".to_owned());

    let rest = flow.deliver(Side::Server, PATIENCE).await?;
    let arrives = if rest == Answer::Received { "received" } else { "never arrives" };
    stage.observe_of(&rest, "the rest of the answer", arrives);
    stage.observe(
        "the client's recv()",
        if rest == Answer::Nothing { "waits".into() } else { rest.to_string() },
    );
    let server = open_or(flow.ended(Side::Server)?);
    stage.observe("the server's connection", &server);
    stage.observe("the node's entry before it", &entry);
    let invalid = node.stats()?.since(&before, Statistic::Invalid);
    stage.observe("INVALID packets", if invalid == 0 { "none" } else { "some" });
    stage.because(format!(
        "when the server went on, the node's entry was: {entry}; the client met: {rest}, the server's connection: \
         {server} ({invalid} INVALID packets)",
        rest = *rest
    ));
    Ok(())
}
