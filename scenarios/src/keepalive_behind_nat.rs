//! "The connection stays open for two hours after it has died."
//!
//! A client keeps an idle connection to a server on the other side of a NAT
//! that forgets an idle mapping after a few minutes. The client does have
//! SO_KEEPALIVE, with the kernel's tcp_keepalive_time of two hours: its first
//! probe is sent for a mapping that is long gone. What the server says in
//! between is for the NAT itself, which resets it (or drops it); the client
//! hears nothing. With a time below the NAT's the mapping lives.

use std::time::Duration;

use lab::Result;
use lab::conntrack::Conntrack;
use lab::probe::{Answer, Flow, Ladder, Side};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::{CtState, Hook, Rule};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "keepalive-behind-nat",
            title: "A NAT forgets an idle connection long before its keepalive begins",
            family: "keepalive",
            saw: "Notifications stop after a quiet time; the client's connection is ESTABLISHED and keepalive is on. The \
              server gets \"connection reset by peer\" for its next message; the client finds out two hours later, \
              or hangs when it speaks. From a machine that is not behind the NAT all is well.",
            cause: "The NAT forgets a mapping that is idle for its timeout (this scenario's setting idle-timeout: 350 s, \
                as AWS documents of its NAT gateway; Azure's load balancer has 240 s unless told otherwise, and RFC \
                5382 asks for more than two hours). \
                tcp_keepalive_time is 7200 s by default, so the first probe comes too late. A server's segment then \
                meets no mapping and is the NAT's own; a client's is mapped anew by a NAT that picks up connections \
                in the middle (nf_conntrack_tcp_loose=1), and leaves with its private address from one that does not.",
            function: "net/ipv4/tcp_timer.c: tcp_keepalive_timer; net/netfilter/nf_conntrack_proto_tcp.c: tcp_new",
            cure: "SO_KEEPALIVE with a tcp_keepalive_time (TCP_KEEPIDLE) below the smallest idle timeout on the way, at \
               either side. SO_KEEPALIVE alone does not help.",
            reading: &[
                "RFC 5382 5: the established connection idle-timeout of a NAT, REQ-5",
                "RFC 9293 3.8.4: TCP keep-alives",
                "tcp(7): tcp_keepalive_time, TCP_KEEPIDLE",
                "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_tcp_timeout_established, nf_conntrack_tcp_loose",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[
            Setting::seconds("idle-timeout", "nf_conntrack_tcp_timeout_established on the NAT", 3, 350),
            Setting::seconds("time", "tcp_keepalive_time at the client, the kernel's", 7, 7200),
            Setting::seconds("intvl", "tcp_keepalive_intvl at the client, the kernel's", 1, 75),
            Setting::number(
                "probes",
                "tcp_keepalive_probes at the client, the kernel's",
                "probes",
                127,
                [2, 9],
            ),
            Setting::seconds("app-time", "TCP_KEEPIDLE of the arms that set it", 1, 300),
        ],
        arms: &[
            Arm::control("the NAT keeps an idle mapping for five days, the kernel's default"),
            Arm::fault("the NAT forgets an idle mapping; then the server speaks first"),
            Arm::variant("nat-drops", "the NAT drops what comes in and is not established"),
            Arm::variant("client-first", "the client speaks first"),
            Arm::variant("client-first-not-loose", "the client speaks first, nf_conntrack_tcp_loose=0"),
            Arm::variant("probe-first", "nobody speaks before the client's first probe"),
            Arm::variant("probe-first-not-loose", "the same, nf_conntrack_tcp_loose=0"),
            Arm::remedy("keepalive", "TCP_KEEPIDLE at the client, below the NAT's timeout"),
            Arm::remedy("server-keepalive", "TCP_KEEPIDLE at the server, below the NAT's timeout"),
        ],
        eras: &[Era::every_kernel(
            "a NAT must forget, and tcp_keepalive_time is two hours (RFC 1122 4.2.3.6)",
        )],
        symptom: Symptom { row: "the first words after it", healthy: "received" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const SERVER: [u8; 4] = [198, 51, 100, 2];
const PATIENCE: Duration = Duration::from_secs(3);
/// net/netfilter/nf_conntrack_proto_tcp.c: tcp_timeouts, five days.
const FIVE_DAYS: u64 = 432_000;

fn topology(plan: &Plan<'_>) -> Topology {
    let timeout = if plan.faulty() { plan.ground.number("idle-timeout") } else { FIVE_DAYS };
    let stranger = Rule::drop("strangers").on(Hook::Input).ct_state(CtState::NEW | CtState::INVALID);
    Topology::new()
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
        .rule_if(plan.is("nat-drops"), "nat", stranger)
        .sysctl("nat", "net.netfilter.nf_conntrack_tcp_timeout_established", timeout)
        .sysctl("nat", "net.netfilter.nf_conntrack_tcp_loose", u8::from(!plan.acts.ends_with("not-loose")))
        .sysctl("client", "net.ipv4.tcp_keepalive_time", plan.ground.number("time"))
        .sysctl("client", "net.ipv4.tcp_keepalive_intvl", plan.ground.number("intvl"))
        .sysctl("client", "net.ipv4.tcp_keepalive_probes", plan.ground.number("probes"))
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let mut flow = Flow::open(stage.host("client"), (SERVER, 80), stage.host("server"), 80).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    let begun = stage.elapsed();
    let silent = || stage.elapsed().saturating_sub(begun);
    flow.keep_alive(Side::Client, None, None, None)?;
    let app_time = stage.ground.seconds("app-time");
    match stage.acts {
        "keepalive" => flow.keep_alive(Side::Client, Some(app_time), Some(app_time), None)?,
        "server-keepalive" => flow.keep_alive(Side::Server, Some(app_time), Some(app_time), None)?,
        _ => {}
    }

    let timeout = stage.ground.seconds("idle-timeout");
    stage.pass(timeout + timeout / 100 + Duration::from_secs(1)).await;
    let nat = Conntrack::of(stage.host("nat").namespace())?;
    let knows = || -> Result<bool> { Ok(!nat.entries()?.is_empty()) };
    let mut memory = if knows()? { "yes" } else { "no" };
    let ladder = Ladder::new(stage.ground, "");
    let mut client = Answer::Nothing;
    while stage.acts.starts_with("probe-first") && client == Answer::Nothing && memory == "no" {
        client = flow.watch(Side::Client, ladder.intvl).await?;
        memory = if knows()? { "no, then again" } else { "no" };
    }
    let mut after = silent();

    let speaker = if stage.acts.starts_with("client-first") { Side::Client } else { Side::Server };
    let met = flow.say(speaker, PATIENCE).await?;
    if client == Answer::Nothing && met != Answer::Received {
        client = flow.watch(Side::Client, ladder.at_latest(ladder.probes).saturating_sub(silent())).await?;
        after = silent();
    }
    stage.see("the first words after it", met);
    stage.see("the NAT remembers it", memory);
    stage.see("the client's connection", explain(ladder, client, after));
    if stage.faulty() {
        let speaker = if speaker == Side::Client { "client" } else { "server" };
        stage.because(format!(
            "the NAT remembered the mapping: {memory}; the {speaker} spoke and met: {met}; the client met: {client}, {:.1} s into the silence",
            after.as_secs_f32()
        ));
    }
    Ok(())
}

/// What the client met, and which of its questions told it.
fn explain(ladder: Ladder, met: Answer, after: Duration) -> String {
    let (time, intvl) = (ladder.time.as_secs(), ladder.intvl.as_secs());
    match met {
        Answer::Nothing | Answer::Received => "open".to_owned(),
        Answer::Reset if ladder.is(0, after) => format!("reset after {time} s, by its first probe"),
        Answer::TimedOut if ladder.is(ladder.probes, after) => {
            format!("ETIMEDOUT after {time} + {} x {intvl} s", ladder.probes)
        }
        other => other.to_string(),
    }
}
