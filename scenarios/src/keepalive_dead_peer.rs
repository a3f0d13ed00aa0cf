//! "The worker holds a lock for a client whose machine lost power yesterday."
//!
//! A peer's link dies without a word. A side that only waits never notices.
//! With SO_KEEPALIVE the kernel asks after tcp_keepalive_time of silence, then
//! every tcp_keepalive_intvl, and gives up after tcp_keepalive_probes questions:
//! ETIMEDOUT at time + probes x intvl, 7200 + 9 x 75 = 7875 s by default.
//! TCP_USER_TIMEOUT, where it is set, replaces the count of probes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lab::Result;
use lab::probe::{Answer, Flow, Ladder, Side, ladder};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::wire::Way;
use lab::wire::policy::Discard;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "keepalive-dead-peer",
            title: "A peer's link dies without a word, and nobody notices",
            family: "keepalive",
            saw: "`ss` shows ESTABLISHED connections to a machine that lost power yesterday. The workers behind them wait \
              in recv() and hold their locks.",
            cause: "TCP sends nothing on an idle connection, so nothing is lost and nothing fails. Only SO_KEEPALIVE asks, \
                and by default after two hours.",
            function: "net/ipv4/tcp_timer.c: tcp_keepalive_timer",
            cure: "SO_KEEPALIVE with a time that suits the application (20/5/9 ends it in 65 s), or TCP_USER_TIMEOUT \
               beside it. The kernel's defaults end it in 7875 s.",
            reading: &[
                "RFC 9293 3.8.4: TCP keep-alives",
                "RFC 5482: TCP user timeout option",
                "tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT",
            ],
        },
        needs: &[Need::Veth, Need::PacketSocket],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[
            Setting::seconds("time", "tcp_keepalive_time, the kernel's", 3, 7200),
            Setting::seconds("intvl", "tcp_keepalive_intvl, the kernel's", 1, 75),
            Setting::number("probes", "tcp_keepalive_probes, the kernel's", "probes", 127, [3, 9]),
            Setting::seconds("app-time", "TCP_KEEPIDLE of the arms that set it", 2, 20),
            Setting::seconds("app-intvl", "TCP_KEEPINTVL of the arms that set it", 1, 5),
            Setting::number("app-probes", "TCP_KEEPCNT of the arms that set it", "probes", 127, [2, 9]),
            Setting::seconds("user-timeout", "TCP_USER_TIMEOUT of the arm that sets it", 5, 30),
            Setting::seconds("watch", "how long the fault is watched", 8, 259_200),
        ],
        arms: &[
            Arm::control("the link lives; SO_KEEPALIVE with the kernel's values"),
            Arm::fault("the link is cut; no keepalive"),
            Arm::remedy("kernel-defaults", "SO_KEEPALIVE with the kernel's values"),
            Arm::remedy("app-values", "SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT"),
            Arm::remedy("user-timeout", "the same and TCP_USER_TIMEOUT"),
        ],
        eras: &[Era::every_kernel("RFC 1122 4.2.3.6: keep-alives must be off by default")],
        symptom: Symptom { row: "half-open connection", healthy: "none" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .host("client")
        .host("server")
        .wire("client 10.0.0.1/24", "server 10.0.0.2/24")
        .sysctl("server", "net.ipv4.tcp_keepalive_time", plan.ground.number("time"))
        .sysctl("server", "net.ipv4.tcp_keepalive_intvl", plan.ground.number("intvl"))
        .sysctl("server", "net.ipv4.tcp_keepalive_probes", plan.ground.number("probes"))
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    // The next hop answers ARP all the while; what lies behind it is gone.
    let cut = Rc::new(Cell::new(false));
    let link = Rc::clone(&cut);
    let wire = stage.wire("client", "server", Discard::matching(move |_, _| link.get()))?;
    let mut flow = Flow::open(stage.host("client"), ([10, 0, 0, 2], 80), stage.host("server"), 80).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    // Nothing may be under way, or it is retransmission that notices.
    flow.settle().await?;
    let app = ["app-values", "user-timeout"].contains(&stage.acts);
    let ladder = Ladder::new(stage.ground, if app { "app-" } else { "" });
    if app {
        flow.keep_alive(Side::Server, Some(ladder.time), Some(ladder.intvl), Some(ladder.probes))?;
    } else if !stage.is("fault") {
        flow.keep_alive(Side::Server, None, None, None)?;
    }
    let user_timeout = stage.is("user-timeout").then(|| stage.ground.seconds("user-timeout"));
    if let Some(timeout) = user_timeout {
        flow.user_timeout(Side::Server, timeout)?;
    }

    if stage.faulty() {
        cut.set(true);
    }
    let since = stage.elapsed();
    let met = flow.watch(Side::Server, stage.ground.seconds("watch")).await?;
    let after = stage.elapsed().checked_sub(since).unwrap();

    let (asked, answered) = ladder::probes(&wire, Way::Back).await;
    stage.see(
        "half-open connection",
        if stage.faulty() && met == Answer::Nothing { "ESTABLISHED, its peer is dead" } else { "none" },
    );
    stage
        .see("recv() ends with", if met == Answer::Nothing { "nothing".to_owned() } else { met.to_string() });
    stage.see(
        "after",
        if met == Answer::TimedOut { explain(ladder, after, user_timeout) } else { "-".to_owned() },
    );
    stage.see(
        "keepalive probes",
        match (asked, answered) {
            (0, _) => "none".to_owned(),
            (_, true) => "answered".to_owned(),
            (asked, false) => format!("{asked}, not answered"),
        },
    );
    if stage.faulty() {
        let counted = stage.counters("server")?.telling();
        stage.because(format!(
            "{:.1} s after the link died recv() met: {met}; counted: {counted}",
            after.as_secs_f32()
        ));
    }
    Ok(())
}

/// The rule that the end follows, or when it came where it follows none.
fn explain(ladder: Ladder, after: Duration, user_timeout: Option<Duration>) -> String {
    let rungs = ladder.rungs(user_timeout);
    let nominal = ladder.at(rungs).as_secs();
    if ladder.is(rungs, after) {
        format!("{nominal} s = {} + {rungs} x {}", ladder.time.as_secs(), ladder.intvl.as_secs())
    } else {
        format!("{:.1} s, not {nominal}", after.as_secs_f32())
    }
}
