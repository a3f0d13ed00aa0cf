//! "Every now and then a connect() takes a second longer, or for ever."
//!
//! The relative of tcp_tw_recycle that survives on every kernel: a NAT hands
//! host-b the source port that host-a has just used, while the server still
//! holds that connection in TIME_WAIT. A SYN with a newer timestamp reopens it;
//! one with an older timestamp is answered by a bare ACK of the old connection.
//! host-b answers that with a RST, the TIME_WAIT socket dies of it (tcp_rfc1337
//! is 0), and the retry a second later gets through, unless a firewall on the
//! way drops the RST.
//!
//! Every host counts its timestamps from an offset of its own per connection
//! (since 4.10), so for two of them behind one address older or newer is the
//! toss of a coin. Here a wire sets the offset, an hour ahead or behind.

use std::time::Duration;

use lab::Result;
use lab::conntrack::Conntrack;
use lab::probe::{Connect, Flow, Side, connect, listen};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::{Choice, Rule, TcpFlags};
use lab::wire::policy::ShiftTimestampClock;
use lab::wire::segment::Flags;
use lab::wire::{Way, Wire};

use crate::one_address::{HOUR, two_hosts};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "time-wait-port-reuse",
            title: "A NAT reuses a port that the server still holds in TIME_WAIT: connects stall",
            family: "TIME_WAIT and timestamps",
            saw: "Through the NAT one connect in a few hundred takes a second longer, and behind the firewall \
              it times out. A capture on the server shows a SYN that is answered by an ACK, not a SYN-ACK.",
            cause: "The SYN meets a TIME_WAIT socket of the same four addresses and ports. PAWS: its timestamp is \
                older than the last one of the old connection, so it cannot be told from a duplicate of that \
                connection and is answered with an ACK. Only the RST to that ACK ends the TIME_WAIT.",
            function: "net/ipv4/tcp_minisocks.c: tcp_timewait_state_process",
            cure: "More source ports or a random choice of them, so that none comes back within 60 s; for pods that \
               share one kernel, tcp_timestamps=2 (no random offset, 4.10 and later); and no firewall rule \
               that drops the RST.",
            reading: &[
                "RFC 6191: reducing the TIME-WAIT state using TCP timestamps",
                "RFC 1337: TIME-WAIT assassination hazards",
                "95a22caee396 tcp: attach random timestamp offsets (4.10)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Replay,
        settings: &[],
        arms: &[
            Arm::control("host-b's timestamps happen to be ahead of host-a's"),
            Arm::fault("host-b's timestamps happen to be behind host-a's"),
            Arm::variant("rst-dropped", "a firewall rule on the NAT drops host-b's RST"),
            Arm::remedy("wider-port-range", "the NAT has 1000 ports to give"),
            Arm::remedy(
                "random-ports",
                "the NAT gives any of 64512 ports, at random (iptables: --random-fully)",
            ),
            Arm::remedy("one-clock", "tcp_timestamps=2 on both hosts, which share a kernel: no offset"),
        ],
        eras: &[
            Era::new("paws-timewait", "6.18 and later", |ground| ground.kernel.has_counter("PAWSTimewait"))
                .since("a counter of its own, TcpExt PAWSTimewait, replaces PAWSEstab"),
            Era::new("paws-estab", "up to 6.17", |_| true)
                .since("counted as PAWSEstab, like a segment of an established connection"),
        ],
        symptom: Symptom { row: "host-b connects", healthy: "at once" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const SERVER: [u8; 4] = [192, 0, 2, 2];
/// Long enough for a SYN, a RST and a second SYN a second later, and for two
/// more where this process is kept from carrying them.
const PATIENCE: Duration = Duration::from_secs(8);

fn topology(plan: &Plan<'_>) -> Topology {
    let (ports, choice) = match plan.acts {
        "wider-port-range" => (40_000..=40_999, Choice::Keep),
        "random-ports" => (1024..=65_535, Choice::FullyRandom),
        _ => (40_000..=40_000, Choice::Keep),
    };
    let nat = Rule::source_nat("nat", [192, 0, 2, 1]).out("server").to_ports(ports).choose(choice);
    two_hosts()
        .link("nat 192.0.2.1/24", "server 192.0.2.2/24")
        .rule("nat", nat)
        .rule_if(plan.is("rst-dropped"), "nat", Rule::drop("rst").tcp_flags(TcpFlags::RST).r#in("host-b"))
        // The NAT forgets sooner than the server: that is how a port comes back.
        .sysctl("nat", "net.netfilter.nf_conntrack_tcp_timeout_time_wait", 1)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let offset = match stage.acts {
        "control" => HOUR,
        "one-clock" => 0,
        _ => HOUR.wrapping_neg(),
    };
    let wire = stage.wire("host-b", "nat", ShiftTimestampClock::new(Way::There, offset))?;
    let (host_a, host_b, server) = (stage.host("host-a"), stage.host("host-b"), stage.host("server"));
    let service = (SERVER, 80);

    let flow = Flow::open_from(host_a, 40_001, service, server, 80).await?;
    flow.close(Side::Server).await?;
    let nat = Conntrack::of(stage.host("nat").namespace())?;
    stage.until("the NAT to forget host-a's connection", || Ok(nat.entries()?.is_empty())).await?;

    let _listener = listen(server, 80)?;
    let met = connect(host_b, 40_002, service, PATIENCE).await?;
    let (syns, answers) = handshake(&wire).await;
    let cell = match met {
        Connect::Connected { .. } if answers.starts_with("SYN-ACK") => "at once".to_owned(),
        Connect::Connected { .. } => "after another SYN".to_owned(),
        other => other.to_string(),
    };
    stage.see("host-b connects", &cell);
    stage.see("the server answers", &answers);
    let changes = stage.counters("server")?;
    let counted = ["PAWSTimewait", "PAWSEstab"].into_iter().find(|c| changes.get(c).is_some_and(|n| n > 0));
    stage.see("counted as", counted.unwrap_or("nothing"));
    if stage.faulty() {
        let counted = changes.telling();
        stage
            .because(format!("host-b sent {syns} SYN(s), the server answered {answers}; counted: {counted}"));
    }
    Ok(())
}

/// How many SYNs host-b sent, and what the server answered: each kind of
/// segment once, in the order they came.
async fn handshake(wire: &Wire) -> (usize, String) {
    wire.caught_up().await;
    let headers = || wire.frames().into_iter().filter_map(|f| Some((f.way, f.header?.flags)));
    let syns = headers().filter(|(way, flags)| *way == Way::There && flags.opens()).count();
    let mut answers: Vec<&str> = vec![];
    for (_, flags) in headers().filter(|(way, _)| *way == Way::Back) {
        let kind = match flags {
            f if f.contains(Flags::SYN_ACK) => "SYN-ACK",
            f if f.contains(Flags::RST) => "RST",
            _ => "ACK",
        };
        if !answers.contains(&kind) {
            answers.push(kind);
        }
    }
    (syns, answers.join(", then "))
}
