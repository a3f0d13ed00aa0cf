//! "Some clients behind the same NAT time out, others are fine. A capture on
//! the server shows the SYN arrive and nothing go back."
//!
//! The server runs with net.ipv4.tcp_tw_recycle=1 and closes first, as web
//! servers do. It remembers the last timestamp of each peer address and drops
//! any SYN with an older one for a minute. Behind a NAT many hosts are one
//! address, and each has a clock of its own.
//!
//! The sysctl is gone since 4.12. `--set recycle=model` puts the check of an old
//! kernel into a wire in front of the server, so that the fault can be seen
//! anywhere; the model agrees with 808 recorded answers of 4.9 and 3.10.

use std::time::Duration;

use lab::Result;
use lab::probe::{Flow, Side, connect, listen};
use lab::scenario::{Arm, Card, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::Rule;
use lab::wire::Way;
use lab::wire::policy::{Pass, RemoveTimestamps, ShiftTimestampClock};

use crate::one_address::{self, Check, HOUR, RECYCLE, knob, recycles, two_hosts};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "tw-recycle-nat",
            title: "tcp_tw_recycle drops the SYNs of some clients behind a NAT",
            family: "TIME_WAIT and timestamps",
            saw: "Some clients behind the same NAT time out, others are fine, and a minute later it is the other way \
              round. A capture on the server shows the SYN arrive and nothing go back. `netstat -s` counts \
              \"passive connections rejected because of time stamp\".",
            cause: "With tcp_tw_recycle=1 a server that closes first remembers the last timestamp of the peer's \
                address, and for 60 s drops every SYN from that address with an older one. Behind a NAT the \
                address stands for many hosts, whose clocks differ.",
            function: "net/ipv4/tcp_input.c: tcp_conn_request; net/ipv4/tcp_metrics.c: tcp_peer_is_proven (up to 4.11)",
            cure: "tcp_tw_recycle=0, at once. Turning timestamps off does not help on 3.17 to 4.11 while a stamp is \
               held: a SYN without a timestamp is dropped too. The sysctl was removed in 4.12.",
            reading: &[
                "4396e46187ca tcp: remove tcp_tw_recycle (4.12)",
                "a26552afe894 tcp: don't allow syn packets without timestamps to pass tcp_tw_recycle logic (3.17)",
                "Vincent Bernat, Coping with the TCP TIME-WAIT state on busy Linux servers (2014)",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        apart: one_address::apart,
        recheck: Recheck::Replay,
        settings: one_address::SETTINGS,
        arms: &[
            Arm::control("no NAT: each host has an address of its own"),
            Arm::fault("both hosts are behind one address"),
            Arm::remedy("recycle-off", "tcp_tw_recycle=0 on the server, after the incident began")
                .only_where(recycles),
            Arm::remedy("server-timestamps-off", "tcp_timestamps=0 on the server, likewise")
                .only_where(recycles),
            Arm::remedy("host-b-timestamps-off", "host-b sends no timestamps").only_where(recycles),
            Arm::remedy("one-clock", "host-b's timestamps are not behind host-a's").only_where(recycles),
            Arm::remedy("client-closes-first", "host-a closes first, so the server has no TIME_WAIT")
                .only_where(recycles),
            Arm::remedy("wait", "host-b waits until the stamp has expired").only_where(recycles),
        ],
        eras: one_address::ERAS,
        symptom: Symptom { row: "host-b connects", healthy: "connected" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
/// As long as people let a connect() hang.
const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    two_hosts()
        .wire("nat 192.0.2.1/24", "server 192.0.2.2/24")
        .rule_if(plan.faulty(), "nat", Rule::source_nat("nat", [192, 0, 2, 1]).out("server"))
        .sysctl_where_known("server", RECYCLE, knob(plan))
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    match stage.acts {
        "one-clock" => stage.wire("host-b", "nat", Pass)?,
        "host-b-timestamps-off" => stage.wire("host-b", "nat", RemoveTimestamps)?,
        _ => stage.wire("host-b", "nat", ShiftTimestampClock::new(Way::There, HOUR.wrapping_neg()))?,
    };
    let check = Check::of(stage, "nat", "server")?;
    let (host_a, host_b, server) = (stage.host("host-a"), stage.host("host-b"), stage.host("server"));

    let flow = Flow::open(host_a, SERVICE, server, 80).await?;
    let first = if stage.is("client-closes-first") { Side::Client } else { Side::Server };
    flow.close(first).await?;
    let expiry = check.expiry();

    // What the administrator does once the first users have complained.
    match stage.acts {
        "recycle-off" => check.recycle_off()?,
        "server-timestamps-off" => check.timestamps_off()?,
        "wait" => check.expired(expiry).await,
        _ => {}
    }

    let _listener = listen(server, 80)?;
    stage.see("host-b connects", connect(host_b, 0, SERVICE, PATIENCE).await?);
    check.see(
        "of host-b without an answer: its timestamps were an hour behind the last one of host-a, which came \
         from the same address",
    )?;
    check.expired(expiry).await;
    stage.see("host-b, the stamp expired", connect(host_b, 0, SERVICE, PATIENCE).await?);
    Ok(())
}
