//! "The worker holds a lock for a client whose machine lost power yesterday."
//!
//! Keepalive ends the connection after time + probes x intvl: 7200 + 9 x 75 =
//! 7875 s by default. TCP_USER_TIMEOUT, if set, replaces the probe count.

use lab::evidence::sockets::{State, sockets};
use lab::prelude::*;

use crate::actors::keepalive_schedule::{self, KeepaliveSchedule};
use crate::keepalive;

const CARD: Card = Card {
    name: "keepalive-dead-peer",
    title: "A peer's link dies without a word, and nobody notices",
    family: "keepalive",
    saw: "`ss` shows ESTABLISHED connections to a machine that lost power yesterday. The workers behind them \
          wait in recv() and hold their locks.",
    cause: "TCP sends nothing on an idle connection, so nothing is lost and nothing fails. Only SO_KEEPALIVE \
            asks, and by default after two hours.",
    function: "net/ipv4/tcp_timer.c: tcp_keepalive_timer",
    cure: "SO_KEEPALIVE with a time that suits the application (20/5/9 ends it in 65 s), or TCP_USER_TIMEOUT \
           beside it. The kernel's defaults end it in 7875 s.",
    reading: &[
        "RFC 9293 3.8.4: TCP keep-alives",
        "RFC 5482: TCP user timeout option",
        "tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::seconds("time", "tcp_keepalive_time, the kernel's", 3, 7200).at_most(Limit::JIFFIES),
    Setting::seconds("intvl", "tcp_keepalive_intvl, the kernel's", 1, 75).at_most(Limit::JIFFIES),
    Setting::number("probes", "tcp_keepalive_probes, the kernel's", "probes", Limit::BYTE, [3, 9]),
    Setting::seconds("app-time", "TCP_KEEPIDLE of the arms that set it", 2, 20)
        .at_most(Limit::KEEPALIVE_OPTION),
    Setting::seconds("app-intvl", "TCP_KEEPINTVL of the arms that set it", 1, 5)
        .at_most(Limit::KEEPALIVE_OPTION),
    Setting::number(
        "app-probes",
        "TCP_KEEPCNT of the arms that set it",
        "probes",
        Limit::KEEPALIVE_COUNT,
        [2, 9],
    ),
    Setting::seconds("user-timeout", "TCP_USER_TIMEOUT of the arm that sets it", 5, 30)
        .at_most(Limit::USER_TIMEOUT),
    Setting::seconds("watch", "how long the fault is watched", 8, 259_200),
];

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("half-open connection", "none"), arms, play)
        .needs([Need::Veth, Need::PacketSocket])
        .settings(SETTINGS)
        .lasts(|env| env.seconds("watch"))
        .eras([Era::every_kernel("RFC 1122 4.2.3.6: keep-alives must be off by default")])
}

fn network(env: &Environment) -> Topology {
    let network = Topology::new().hosts(["client", "server"]);
    let network = network.wire("client 10.0.0.1/24", "server 10.0.0.2/24");
    keepalive::kernel_values(network, "server", env)
}

/// The source of the server's keepalive values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Kernel,
    Application,
}

#[derive(Debug, Clone)]
struct Conduct {
    link_is_cut: bool,
    keepalive: Option<Values>,
    user_timeout: Option<Duration>,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let base = Conduct { link_is_cut: false, keepalive: None, user_timeout: None };
    let watch = env.seconds("watch");
    let ends = |prefix: &str, user_timeout: Option<Duration>| {
        let schedule = KeepaliveSchedule::new(env, prefix);
        schedule.at(schedule.intervals(user_timeout))
    };
    let too_late = |ends: Duration| {
        let (ends, watch) = (ends.as_secs(), watch.as_secs());
        format!("the connection ends after {ends} s, and is watched for {watch} s")
    };
    let user_timeout = Some(env.seconds("user-timeout"));
    let [kernel, app] = [ends("", None), ends("app-", None)];
    let limited = ends("app-", user_timeout);
    Arms::control("the link lives; no keepalive", network(env), base)
        .fault("the link is cut; no keepalive", |arm| arm.link_is_cut = true)
        .remedy("kernel-defaults", "SO_KEEPALIVE with the kernel's values", |arm| {
            arm.keepalive = Some(Values::Kernel);
        })
        .no_effect_if(kernel >= watch, || too_late(kernel))
        .remedy("app-values", "SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT", |arm| {
            arm.keepalive = Some(Values::Application);
        })
        .no_effect_if(app >= watch, || too_late(app))
        .remedy("user-timeout", "the same and TCP_USER_TIMEOUT", |arm| {
            arm.keepalive = Some(Values::Application);
            arm.user_timeout = user_timeout;
        })
        .no_effect_if(limited >= watch, || too_late(limited))
}

const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (policy, link) = policy::Cut::tcp_only();
    let wire = stage.wire("client", "server", policy)?;
    let (client, server) = (stage.host("client"), stage.host("server"));
    let mut flow = Flow::open(client, (server.address(), 80), server, 80).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    // Retransmissions of unacknowledged data would detect the dead peer.
    flow.settle().await?;
    let app = conduct.keepalive == Some(Values::Application);
    let schedule = KeepaliveSchedule::new(stage.env, if app { "app-" } else { "" });
    let KeepaliveSchedule { time, intvl, probes } = schedule;
    match conduct.keepalive {
        None => {}
        Some(Values::Kernel) => flow.keep_alive(Side::Server, None, None, None)?,
        Some(Values::Application) => flow.keep_alive(Side::Server, Some(time), Some(intvl), Some(probes))?,
    }
    if let Some(timeout) = conduct.user_timeout {
        flow.user_timeout(Side::Server, timeout)?;
    }

    if conduct.link_is_cut {
        link.cut();
    }
    let (since, limit) = (stage.elapsed(), conduct.user_timeout);
    let met = flow.watch(Side::Server, stage.env.seconds("watch")).await?;
    let after = stage.elapsed().saturating_sub(since);
    let (asked, answered) = keepalive_schedule::probes(&wire, Direction::Back).await;
    let counted = stage.counters("server")?.telling();

    // The socket's state in the server's kernel, and whether its peer can be
    // reached.
    let believes = sockets(server.namespace())?.into_iter().find(|s| s.local.port() == 80);
    let believes = believes.map_or("none".to_owned(), |socket| socket.state.to_string());
    let peer = connect(server, 0, (client.address(), 7), PATIENCE).await?;
    let dead = believes == State::Established.to_string() && matches!(*peer, Connect::TimedOut { .. });
    let half_open = if dead { "ESTABLISHED, its peer is dead" } else { "none" };
    stage.observe_of(&peer, "half-open connection", half_open);
    stage.observe("the server's socket", &believes);
    stage.observe("a SYN to the peer", &peer);
    let nothing = met == Answer::Nothing;
    stage.observe("recv() ends with", if nothing { "nothing".to_owned() } else { met.to_string() });
    stage.observe("after", keepalive::rule(schedule, *met, after, limit));
    stage.observe(
        "keepalive probes",
        match (asked, answered) {
            (0, _) => "none".to_owned(),
            (_, true) => "answered".to_owned(),
            (asked, false) => format!("{asked}, not answered"),
        },
    );
    let seconds = after.as_secs_f32();
    stage.because(format!(
        "after {seconds:.1} s of silence recv() met: {met}; the server's socket: {believes}; a SYN to the peer: \
         {peer}; counted: {counted}",
        met = *met,
        peer = *peer
    ));
    Ok(())
}
