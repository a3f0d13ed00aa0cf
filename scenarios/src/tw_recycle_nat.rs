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
use lab::network::sysctl;
use lab::probe::{Flow, Side, connect, listen};
use lab::scenario::{Arm, Card, Era, Ground, Need, Plan, Play, Scenario, Setting, Shows, Symptom, Values};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::Rule;
use lab::wire::Way;
use lab::wire::policy::{Pass, RemoveTimestamps, ShiftTimestampClock};
use lab::wire::tw_recycle::{self, TwRecycle};

const RECYCLE: &str = "net.ipv4.tcp_tw_recycle";
const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
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
    // Up to 4.10 the sysctl is one for all namespaces.
    apart: |ground| !modelled(ground) && ground.kernel.has_sysctl(RECYCLE),
    settings: &[
        Setting {
            key: "recycle",
            about: "whose check: the kernel's own, or the model of 4.x or 3.10 on a wire",
            values: Values::Choice(&["kernel", "model", "model-3.10"]),
        },
        Setting::seconds("paws-window", "how long a stamp counts; a kernel's own is always 60", 8, 60),
    ],
    arms: &[
        Arm::control("no NAT: each host has an address of its own"),
        Arm::fault("both hosts are behind one address"),
        Arm::remedy("recycle-off", "tcp_tw_recycle=0 on the server, after the incident began")
            .only_where(recycles),
        Arm::remedy("server-timestamps-off", "tcp_timestamps=0 on the server, likewise").only_where(recycles),
        Arm::remedy("host-b-timestamps-off", "host-b sends no timestamps").only_where(recycles),
        Arm::remedy("one-clock", "host-b's timestamps are not behind host-a's").only_where(recycles),
        Arm::remedy("client-closes-first", "host-a closes first, so the server has no TIME_WAIT")
            .only_where(recycles),
        Arm::remedy("wait", "host-b waits until the stamp has expired").only_where(recycles),
    ],
    eras: &[
        Era {
            name: "model",
            kernels: "any kernel with --set recycle=model",
            since: "the check of 3.17 to 4.11, on a wire in front of the server",
            shows: Shows::Reproduced,
            recognise: |ground| ground.word("recycle") == "model",
        },
        Era {
            name: "model-3.10",
            kernels: "any kernel with --set recycle=model-3.10",
            since: "the check of 3.6 to 3.16, on a wire in front of the server",
            shows: Shows::Reproduced,
            recognise: |ground| ground.word("recycle") == "model-3.10",
        },
        Era {
            name: "has-tcp-tw-recycle",
            kernels: "2.6 to 4.11",
            since: "the sysctl exists",
            shows: Shows::Reproduced,
            recognise: |ground| ground.kernel.has_sysctl(RECYCLE),
        },
        Era {
            name: "gone",
            kernels: "4.12 and later",
            since: "4396e46187ca removed the sysctl and the check",
            shows: Shows::Immune,
            // An older kernel whose sysctl cannot be seen hides it from this
            // namespace: it needs a machine of its own.
            recognise: |ground| ground.kernel.at_least(4, 12),
        },
    ],
    symptom: Symptom { row: "host-b connects", healthy: "connected" },
    topology,
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// An hour, in the milliseconds that timestamps count (4.13 and later).
const HOUR: u32 = 3_600_000;
const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
/// As long as people let a connect() hang.
const PATIENCE: Duration = Duration::from_secs(5);

fn modelled(ground: &Ground) -> bool {
    ground.word("recycle") != "kernel"
}

fn recycles(ground: &Ground) -> bool {
    modelled(ground) || ground.kernel.has_sysctl(RECYCLE)
}

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .host("host-a")
        .host("host-b")
        .router("nat")
        .host("server")
        .link("host-a 10.0.1.2/24", "nat 10.0.1.1/24")
        .wire("host-b 10.0.2.2/24", "nat 10.0.2.1/24")
        .wire("nat 192.0.2.1/24", "server 192.0.2.2/24")
        .rule_if(plan.faulty(), "nat", Rule::source_nat("nat", [192, 0, 2, 1]).out("server"))
        .sysctl_where_known("server", RECYCLE, 1)
        // No random offset per connection (4.10 and later): the clock is the
        // machine's, and host-b's that of the wire.
        .sysctl_where_known("host-a", TIMESTAMPS, 2)
        .sysctl_where_known("host-b", TIMESTAMPS, 2)
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    match stage.acts {
        "one-clock" => stage.wire("host-b", "nat", Pass)?,
        "host-b-timestamps-off" => stage.wire("host-b", "nat", RemoveTimestamps)?,
        _ => stage.wire("host-b", "nat", ShiftTimestampClock::new(Way::There, HOUR.wrapping_neg()))?,
    };
    let rule = match stage.ground.word("recycle") {
        "model-3.10" => tw_recycle::Rule::V3_10,
        _ => tw_recycle::Rule::V4,
    };
    let (policy, model) = TwRecycle::new(rule, Way::There);
    let modelled = modelled(stage.ground);
    if modelled {
        model.set_paws_window(stage.ground.seconds("paws-window"));
        stage.wire("nat", "server", policy)?;
    } else {
        stage.wire("nat", "server", Pass)?;
    }
    let (host_a, host_b, server) = (stage.host("host-a"), stage.host("host-b"), stage.host("server"));

    let flow = Flow::open(host_a, SERVICE, server, 80).await?;
    let first = if stage.is("client-closes-first") { Side::Client } else { Side::Server };
    flow.close(first).await?;
    let stamped = stage.elapsed();

    // What the administrator does once the first users have complained.
    if stage.is("recycle-off") {
        model.set_recycle(false);
        sysctl::set_where_known(server.namespace(), RECYCLE, "0")?;
    }
    if stage.is("server-timestamps-off") {
        model.set_timestamps(false);
        sysctl::set_where_known(server.namespace(), TIMESTAMPS, "0")?;
    }
    // Stamps count whole seconds: one more than the window is always enough.
    let expired = stamped + stage.ground.seconds("paws-window") + Duration::from_secs(1);
    if stage.is("wait") {
        stage.pass(expired.saturating_sub(stage.elapsed())).await;
    }

    let _listener = listen(server, 80)?;
    stage.see("host-b connects", connect(host_b, 0, SERVICE, PATIENCE).await?);
    let changes = stage.counters("server")?;
    let passive =
        if modelled { i64::try_from(model.counters().paws_passive).ok() } else { changes.get("PAWSPassive") };
    stage.see(
        "PAWSPassive",
        match passive {
            None => "no such counter",
            Some(0) => "did not move",
            Some(_) => "moved",
        },
    );
    if let Some(dropped) = passive.filter(|n| *n > 0) {
        let who = if modelled { "the model of the server's check" } else { "the server" };
        stage.because(format!(
            "{who} dropped {dropped} SYN(s) of host-b without an answer (PAWSPassive +{dropped}): its timestamps \
             were an hour behind the last one of host-a, which came from the same address"
        ));
    }
    stage.pass(expired.saturating_sub(stage.elapsed())).await;
    stage.see("host-b, the stamp expired", connect(host_b, 0, SERVICE, PATIENCE).await?);
    Ok(())
}
