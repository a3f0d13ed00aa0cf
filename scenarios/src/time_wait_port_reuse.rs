//! "Every now and then a connect() takes a second longer, or for ever."
//!
//! Since 4.10 each connection has its own timestamp offset, so it is a matter
//! of chance which of two hosts is ahead. Here a wire sets the offset.

use lab::prelude::*;
use lab::topology::rule::{Choice, TcpFlags};
use lab::wire::Wire;
use lab::wire::segment::Flags;

use crate::one_address::{TICKS_APART, two_hosts};

const CARD: Card = Card {
    name: "time-wait-port-reuse",
    title: "A NAT reuses a port that the server still holds in TIME_WAIT: connects stall",
    family: "TIME_WAIT and timestamps",
    saw: "Through the NAT one connect in a few hundred takes a second longer, and behind the firewall it \
          times out. A capture on the server shows a SYN that is answered by an ACK, not a SYN-ACK: \
          a \"challenge ACK\", which Wireshark marks \"TCP ACKed unseen segment\".",
    cause: "The SYN meets a TIME_WAIT socket of the same four addresses and ports. PAWS: its timestamp is \
            older than the last one of the old connection, so it cannot be told from a duplicate of that \
            connection and is answered with an ACK. Only the RST to that ACK ends the TIME_WAIT.",
    function: "net/ipv4/tcp_minisocks.c: tcp_timewait_state_process",
    cure: "More source ports or a random choice of them, so that none comes back within 60 s; for pods that \
           share one kernel, tcp_timestamps=2 (no random offset, 4.10 and later); and no firewall rule that \
           drops the RST.",
    reading: &[
        "cilium#45863: a port reused in TIME_WAIT, a challenge ACK, and the RST is lost",
        "RFC 6191: reducing the TIME-WAIT state using TCP timestamps",
        "RFC 1337: TIME-WAIT assassination hazards",
        "95a22caee396 tcp: attach random timestamp offsets (4.10)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("host-b connects", "at once"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .eras([
            Era::new("paws-timewait", "6.18 and later", |env| env.kernel.has_counter("PAWSTimewait"))
                .since("a counter of its own, TcpExt PAWSTimewait, replaces PAWSEstab"),
            Era::new("paws-estab", "up to 6.17", |_| true)
                .since("counted as PAWSEstab, like a segment of an established connection"),
        ])
}

fn nat(ports: std::ops::RangeInclusive<u16>, choice: Choice) -> Rule {
    Rule::source_nat("nat", [192, 0, 2, 1]).out("server").to_ports(ports).choose(choice)
}

fn network() -> Topology {
    two_hosts()
        .link("nat 192.0.2.1/24", "server 192.0.2.2/24")
        .rule("nat", nat(40_000..=40_000, Choice::Keep))
        // The NAT removes its entry before the server ends TIME_WAIT: only then
        // is a port reused.
        .sysctl("nat", "net.netfilter.nf_conntrack_tcp_timeout_time_wait", 1)
}

#[derive(Debug, Clone)]
struct Conduct {
    /// How far host-b's timestamps are ahead of host-a's, in ticks.
    host_b_ahead: i32,
}

fn arms() -> Arms<Conduct> {
    let apart = TICKS_APART.cast_signed();
    let base = Conduct { host_b_ahead: apart };
    Arms::control("host-b's timestamps happen to be ahead of host-a's", network(), base)
        .fault("host-b's timestamps happen to be behind host-a's", |arm| arm.host_b_ahead = -apart)
        .variant("rst-dropped", "a firewall rule on the NAT drops host-b's RST", |arm| {
            arm.rule("nat", Rule::drop("rst").tcp_flags(TcpFlags::RST).r#in("host-b"));
        })
        .remedy("wider-port-range", "the NAT has 1000 ports to give", |arm| {
            arm.rule("nat", nat(40_000..=40_999, Choice::Keep));
        })
        .remedy(
            "random-ports",
            "the NAT gives any of 64512 ports, at random (iptables: --random-fully)",
            |arm| arm.rule("nat", nat(1024..=65_535, Choice::FullyRandom)),
        )
        .remedy("one-clock", "tcp_timestamps=2 on both hosts, which share a kernel: no offset", |arm| {
            arm.host_b_ahead = 0;
        })
}

const SERVER: [u8; 4] = [192, 0, 2, 2];
/// Long enough for a SYN, a RST and a second SYN after 1 s, and for two more
/// SYNs if this process carries the frames late.
const PATIENCE: Duration = Duration::from_secs(8);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let clock = policy::ShiftTimestampClock::new(Direction::There, conduct.host_b_ahead.cast_unsigned());
    let wire = stage.wire("host-b", "nat", clock)?;
    let (host_a, host_b, server) = (stage.host("host-a"), stage.host("host-b"), stage.host("server"));
    let flow = Flow::open_from(host_a, 40_001, (SERVER, 80), server, 80).await?;
    flow.close(Side::Server).await?;
    let nat = Conntrack::of(stage.host("nat").namespace())?;
    stage.until("the NAT to forget host-a's connection", || Ok(nat.entries()?.is_empty())).await?;

    let _listener = listen(server, 80)?;
    let met = connect(host_b, 40_002, (SERVER, 80), PATIENCE).await?;
    let (syns, answers) = handshake(&wire).await;
    let cell = match &*met {
        Connect::Connected { .. } if answers.starts_with("SYN-ACK") => "at once".to_owned(),
        Connect::Connected { .. } => "after another SYN".to_owned(),
        other => other.to_string(),
    };
    stage.observe_of(&met, "host-b connects", &cell);
    stage.observe("the server answers", &answers);
    let changes = stage.counters("server")?;
    let counted = ["PAWSTimewait", "PAWSEstab"].into_iter().find(|c| changes.get(c).is_some_and(|n| n > 0));
    stage.observe("counted as", counted.unwrap_or("nothing"));
    let counted = changes.telling();
    stage.because(format!("host-b sent {syns} SYN(s), the server answered {answers}; counted: {counted}"));
    Ok(())
}

/// How many SYNs host-b sent, and the server's answers: each kind of segment
/// once, in order of arrival.
async fn handshake(wire: &Wire) -> (usize, String) {
    wire.caught_up().await;
    let headers = || wire.frames().into_iter().filter_map(|f| Some((f.direction, f.header?.flags)));
    let syns = headers().filter(|(direction, flags)| *direction == Direction::There && flags.opens()).count();
    let mut answers: Vec<&str> = vec![];
    for (_, flags) in headers().filter(|(direction, _)| *direction == Direction::Back) {
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
