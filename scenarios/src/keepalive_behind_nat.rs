//! "The connection stays open for two hours after it has died."

use lab::prelude::*;
use lab::topology::rule::Hook;

use crate::actors::KeepaliveSchedule;
use crate::keepalive;
use crate::service::LOOSE;

const CARD: Card = Card {
    name: "keepalive-behind-nat",
    title: "A NAT forgets an idle connection long before its keepalive begins",
    family: "keepalive",
    saw: "Notifications stop after a quiet time; the client's connection is ESTABLISHED and keepalive is on. \
          The server gets \"connection reset by peer\" for its next message; the client finds out two hours \
          later, or hangs when it speaks. From a machine that is not behind the NAT all is well. Long-lived \
          connections die behind a NAT of 300 s (haproxy#252).",
    cause: "The NAT forgets a mapping that is idle for its timeout (this scenario's setting idle-timeout: \
            350 s, as AWS documents of its NAT gateway; Azure's load balancer has 240 s unless told \
            otherwise, and RFC 5382 asks for more than two hours). tcp_keepalive_time is 7200 s by default, \
            so the first probe comes too late. A server's segment then meets no mapping and is the NAT's \
            own; a client's is mapped anew by a NAT that picks up connections in the middle \
            (nf_conntrack_tcp_loose=1), and leaves with its private address from one that does not.",
    function: "net/ipv4/tcp_timer.c: tcp_keepalive_timer; net/netfilter/nf_conntrack_proto_tcp.c: tcp_new",
    cure: "SO_KEEPALIVE with a tcp_keepalive_time (TCP_KEEPIDLE) below the smallest idle timeout on the way, \
           at either side. SO_KEEPALIVE alone does not help.",
    reading: &[
        "RFC 5382 5: the established connection idle-timeout of a NAT, REQ-5",
        "RFC 9293 3.8.4: TCP keep-alives",
        "tcp(7): tcp_keepalive_time, TCP_KEEPIDLE",
        "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_tcp_timeout_established, nf_conntrack_tcp_loose",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::seconds("idle-timeout", "nf_conntrack_tcp_timeout_established on the NAT", 3, 350)
        .at_most(LONGEST),
    Setting::seconds("time", "tcp_keepalive_time at the client, the kernel's", 7, 7200)
        .at_most(Limit::JIFFIES),
    Setting::seconds("intvl", "tcp_keepalive_intvl at the client, the kernel's", 1, 75)
        .at_most(Limit::JIFFIES),
    Setting::number(
        "probes",
        "tcp_keepalive_probes at the client, the kernel's",
        "probes",
        Limit::BYTE,
        [2, 9],
    ),
    Setting::seconds("app-time", "TCP_KEEPIDLE of the arms that set it", 1, 300)
        .at_most(Limit::KEEPALIVE_OPTION),
];

/// The NAT removes a mapping that is idle for longer, even in the control.
const LONGEST: Limit = Limit {
    most: 400_000,
    why: "the NAT of the control keeps an idle mapping for 432000 s, the kernel's default",
};

/// A silence that is longer than the idle timeout.
fn longer_than(timeout: Duration) -> Duration {
    timeout + timeout / 100 + Duration::from_secs(1)
}

/// The longer of the silence and a keepalive schedule without any answer.
fn lasts(env: &Environment) -> Duration {
    let schedule = KeepaliveSchedule::new(env, "");
    longer_than(env.seconds("idle-timeout")).max(schedule.at_latest(schedule.probes))
}

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the first words after it", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings(SETTINGS)
        .lasts(lasts)
        .eras([Era::every_kernel(
            "a NAT must forget, and tcp_keepalive_time is two hours (RFC 1122 4.2.3.6)",
        )])
}

const SERVER: [u8; 4] = [198, 51, 100, 2];
const TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

fn network(env: &Environment) -> Topology {
    let network = Topology::new()
        .host("client")
        .router("nat")
        .router("isp")
        .host("server")
        .link("client 10.0.0.2/24", "nat 10.0.0.1/24")
        .link("nat 192.0.2.2/24", "isp 192.0.2.1/24")
        .link("isp 198.51.100.1/24", "server 198.51.100.2/24")
        // The provider has no route back to a private address.
        .route("nat", "default", "192.0.2.1")
        .rule("nat", Rule::source_nat("nat", [192, 0, 2, 2]).out("isp"))
        // net/netfilter/nf_conntrack_proto_tcp.c: tcp_timeouts, five days.
        .sysctl("nat", TIMEOUT, 432_000)
        .sysctl("nat", LOOSE, 1);
    keepalive::kernel_values(network, "client", env)
}

#[derive(Debug, Clone)]
struct Conduct {
    first: Side,
    /// Neither side sends before the client's keepalive has probed.
    awaits_probe: bool,
    /// The side that sets TCP_KEEPIDLE.
    keepidle: Option<Side>,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let (timeout, own) = (env.seconds("idle-timeout"), env.seconds("time"));
    let app = env.seconds("app-time");
    let base = Conduct { first: Side::Server, awaits_probe: false, keepidle: None };
    Arms::control("the NAT keeps an idle mapping for five days, the kernel's default", network(env), base)
        .fault("the NAT forgets an idle mapping; then the server speaks first", |arm| {
            arm.sysctl("nat", TIMEOUT, timeout.as_secs());
        })
        .no_effect_if(own < timeout, || {
            let (own, timeout) = (own.as_secs(), timeout.as_secs());
            format!("the client's own keepalive, of {own} s, is fast enough for a timeout of {timeout} s")
        })
        .variant("nat-drops", "the NAT drops what comes in and is not established", |arm| {
            let strangers = Rule::drop("strangers").on(Hook::Input);
            arm.rule("nat", strangers.ct_state(CtState::NEW | CtState::INVALID));
        })
        .variant("client-first", "the client speaks first", |arm| arm.first = Side::Client)
        .variant("client-first-not-loose", "the client speaks first, nf_conntrack_tcp_loose=0", |arm| {
            arm.first = Side::Client;
            arm.sysctl("nat", LOOSE, 0);
        })
        .variant("probe-first", "nobody speaks before the client's first probe", |arm| {
            arm.awaits_probe = true;
        })
        .variant("probe-first-not-loose", "the same, nf_conntrack_tcp_loose=0", |arm| {
            arm.awaits_probe = true;
            arm.sysctl("nat", LOOSE, 0);
        })
        .remedy("keepalive", "TCP_KEEPIDLE at the client, below the NAT's timeout", |arm| {
            arm.keepidle = Some(Side::Client);
        })
        .no_effect_if(app >= timeout, || keepalive::too_slow(app, timeout))
        .remedy("server-keepalive", "TCP_KEEPIDLE at the server, below the NAT's timeout", |arm| {
            arm.keepidle = Some(Side::Server);
        })
        .no_effect_if(app >= timeout, || keepalive::too_slow(app, timeout))
}

const PATIENCE: Duration = Duration::from_secs(3);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let mut flow = Flow::open(stage.host("client"), (SERVER, 80), stage.host("server"), 80).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    let begun = stage.elapsed();
    let silent = || stage.elapsed().saturating_sub(begun);
    flow.keep_alive(Side::Client, None, None, None)?;
    if let Some(side) = conduct.keepidle {
        let time = stage.env.seconds("app-time");
        flow.keep_alive(side, Some(time), Some(time), None)?;
    }

    let timeout = stage.env.seconds("idle-timeout");
    stage.pass(longer_than(timeout)).await;
    let nat = Conntrack::of(stage.host("nat").namespace())?;
    let knows = || -> Result<bool> { Ok(!nat.entries()?.is_empty()) };
    let mut memory = if knows()? { "yes" } else { "no" };
    let schedule = KeepaliveSchedule::new(stage.env, "");
    let mut client = Answer::Nothing;
    while conduct.awaits_probe && client == Answer::Nothing && memory == "no" {
        client = *flow.watch(Side::Client, schedule.intvl).await?;
        memory = if knows()? { "no, then again" } else { "no" };
    }
    let mut after = silent();

    let met = flow.say(conduct.first, PATIENCE).await?;
    if client == Answer::Nothing && met != Answer::Received {
        client =
            *flow.watch(Side::Client, schedule.at_latest(schedule.probes).saturating_sub(silent())).await?;
        after = silent();
    }
    stage.observe("the first words after it", met);
    stage.observe("the NAT remembers it", memory);
    stage.observe("the client's connection", keepalive::probe(schedule, client, after));
    let (first, after) = (conduct.first, after.as_secs_f32());
    stage.because(format!(
        "the NAT remembered the mapping: {memory}; the {first} spoke and met: {met}; the client met: {client}, \
         {after:.1} s into the silence",
        met = *met
    ));
    Ok(())
}
