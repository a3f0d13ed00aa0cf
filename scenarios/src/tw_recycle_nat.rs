//! "Some clients behind the same NAT time out, others are fine. A capture on
//! the server shows the SYN arrive and nothing go back."
//!
//! Linux 4.12 removed the sysctl. `--set recycle=model` puts a model of the old
//! kernel's check into a wire in front of the server. The model agrees with 808
//! answers recorded from 4.9 and mainline 3.10.

use lab::prelude::*;

use crate::one_address::{self, Check, Measure, RECYCLE, TICKS_APART, knob, recycles, two_hosts};

const CARD: Card = Card {
    name: "tw-recycle-nat",
    title: "tcp_tw_recycle drops the SYNs of some clients behind a NAT",
    family: "TIME_WAIT and timestamps",
    saw: "Some clients behind the same NAT time out, others are fine, and a minute later it is the other way \
          round. A capture on the server shows the SYN arrive and nothing go back. `netstat -s` counts \
          \"passive connections rejected because of time stamp\". After a load test by one client, the \
          service is dead for 60 s to other clients behind the same address (kubernetes#33945).",
    cause: "With tcp_tw_recycle=1 a server that closes first remembers the last timestamp of the peer's \
            address, and for 60 s drops every SYN from that address with an older one. Behind a NAT the \
            address stands for many hosts, whose clocks differ.",
    function: "net/ipv4/tcp_input.c: tcp_conn_request; net/ipv4/tcp_metrics.c: tcp_peer_is_proven (up to \
               4.11)",
    cure: "tcp_tw_recycle=0, at once. Turning timestamps off does not help on 3.17 to 4.11 and RHEL 7 while \
           a stamp is held: a SYN without a timestamp is dropped too. The sysctl was removed in 4.12.",
    reading: &[
        "4396e46187ca tcp: remove tcp_tw_recycle (4.12)",
        "a26552afe894 tcp: don't allow syn packets without timestamps to pass tcp_tw_recycle logic (3.17)",
        "Vincent Bernat, Coping with the TCP TIME-WAIT state on busy Linux servers (2014)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("host-b connects", "connected"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        .sequential(one_address::sequential)
        .lasts(|env| 3 * env.seconds("paws-window"))
        .settings([one_address::SETTINGS, &[Setting::family()]].concat())
        .eras(one_address::ERAS)
}

fn network(env: &Environment) -> Topology {
    two_hosts().wire("nat 192.0.2.1/24", "server 192.0.2.2/24").sysctl_where_known(
        "server",
        RECYCLE,
        knob(env),
    )
}

/// The timestamps of host-b.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Behind,
    NotBehind,
    NoTimestamps,
}

#[derive(Debug, Clone)]
struct Conduct {
    host_b: Clock,
    first_to_close: Side,
    /// What the administrator does after the first complaints.
    measure: Measure,
    waits_for_expiry: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let base = Conduct {
        host_b: Clock::Behind,
        first_to_close: Side::Server,
        measure: Measure::None,
        waits_for_expiry: false,
    };
    Arms::control("no NAT: each host has an address of its own", network(env), base)
        .fault("both hosts are behind one address", |arm| {
            arm.rule("nat", Rule::source_nat("nat", [192, 0, 2, 1]).out("server"));
        })
        .rest_only_where(recycles(env))
        .remedy("recycle-off", "tcp_tw_recycle=0 on the server, after the incident began", |arm| {
            arm.measure = Measure::RecycleOff;
        })
        .remedy("server-timestamps-off", "tcp_timestamps=0 on the server, after it began", |arm| {
            arm.measure = Measure::TimestampsOff;
        })
        .remedy("host-b-timestamps-off", "host-b sends no timestamps", |arm| {
            arm.host_b = Clock::NoTimestamps;
        })
        .remedy("one-clock", "host-b's timestamps are not behind host-a's", |arm| {
            arm.host_b = Clock::NotBehind;
        })
        .remedy("client-closes-first", "host-a closes first, so the server has no TIME_WAIT", |arm| {
            arm.first_to_close = Side::Client;
        })
        .remedy("wait", "host-b waits until the stamp has expired", |arm| {
            arm.waits_for_expiry = true;
        })
        .in_family(env.family())
}

const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
/// How long people let a connect() hang.
const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    match conduct.host_b {
        Clock::Behind => stage.wire(
            "host-b",
            "nat",
            policy::ShiftTimestampClock::new(Direction::There, TICKS_APART.wrapping_neg()),
        )?,
        Clock::NotBehind => stage.wire("host-b", "nat", policy::Pass)?,
        Clock::NoTimestamps => stage.wire("host-b", "nat", policy::RemoveTimestamps)?,
    };
    let check = Check::of(stage, "nat", "server")?;
    let (host_a, host_b, server) = (stage.host("host-a"), stage.host("host-b"), stage.host("server"));
    let service = stage.env.family().socket(SERVICE);
    Flow::open(host_a, service, server, 80).await?.close(conduct.first_to_close).await?;
    let expiry = check.expiry();
    check.take(conduct.measure)?;
    if conduct.waits_for_expiry {
        check.expired(expiry).await;
    }

    let _listener = listen(server, 80)?;
    stage.observe("host-b connects", connect(host_b, 0, service, PATIENCE).await?);
    check.see("host-b")?;
    check.expired(expiry).await;
    stage.observe("host-b, the stamp expired", connect(host_b, 0, service, PATIENCE).await?);
    Ok(())
}
