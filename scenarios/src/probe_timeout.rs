//! "Readiness probe failed: context deadline exceeded", on and off, since an
//! eviction put more load on the node. Then the restarts began.
//!
//! CPU load is not reproducible, so the agent waits 1.5 s where a busy CPU
//! would delay it. Probes, answers and RSTs come from a real kernel; the rules
//! are the kubelet's.

use std::cell::Cell;
use std::rc::Rc;

use lab::prelude::*;
use lab::wire::tw_recycle::{self, TwRecycle};

use crate::actors::Kubelet;
use crate::actors::http::{Agent, get};
use crate::actors::prober::{BackOff, Purpose, Spec, Worker};
use crate::one_address::{TICKS_APART, TIMESTAMPS};

const CARD: Card = Card {
    name: "probe-timeout",
    title: "A busy agent answers its health probe in 1.5 s, and timeoutSeconds is 1",
    family: "health probes",
    saw: "kubectl get events: \"Readiness probe failed: Get http://...: context deadline exceeded \
          (Client.Timeout exceeded while awaiting headers)\", on and off since pods were evicted to this \
          node. Then \"failed liveness probe, will be restarted\" (with dockershim, up to 1.13: \"Killing \
          container with id docker://agent:Container failed liveness probe.. Container will be killed and \
          recreated.\"), and the restarts make the node busier still. Elsewhere the agent is idle, and it is \
          \"net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting \
          headers)\".",
    cause: "timeoutSeconds is 1 by default and counts from the SYN to the header. What answers later has \
            failed, however well it works. failureThreshold such probes in a row, 3 by default, make a pod \
            unready; of a liveness probe, they restart its container. \"While waiting for connection\" \
            means, for a plain HTTP probe, that connect() had not succeeded in time: one lost SYN is enough, \
            because it is retransmitted after a second.",
    function: "pkg/kubelet/prober/worker.go: doProbe (Kubernetes)",
    cure: "timeoutSeconds above what the agent needs on its worst day. A higher failureThreshold rides out a \
           burst, and only puts off what a lasting load does. A liveness probe more patient than the \
           readiness probe ends the restarts and lets the pod leave its Service meanwhile.",
    reading: &[
        "Kubernetes, Configure Liveness, Readiness and Startup Probes",
        "kubernetes#94115: timeoutSeconds counts for exec probes too, which it did not before 1.20",
        "kubernetes#89898, kubernetes#51096: probes of an idle agent fail, while waiting for connection",
        "pkg/probe/http/http.go: one connection per probe",
        "net/http: \"request canceled while waiting for connection\": look for a lost SYN or SYN-ACK, not for a slow agent",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("restarts", "0"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        // Ten arms at once would load the machine. In virtual time, running
        // them one after another costs nothing.
        .sequential(|env| env.clock == Clock::Virtual)
        .settings([
            Setting::seconds("period", "periodSeconds", 2, 10),
            Setting::seconds("back-off", "the first wait of CrashLoopBackOff, the kubelet's", 2, 10)
                .at_most(LONGEST_BACK_OFF),
        ])
        .lasts(|env| PERIODS * env.seconds("period"))
        .eras([Era::every_kernel("the kernel has no part in it but to carry what comes too late")])
}

const LONGEST_BACK_OFF: Limit = Limit { most: 300, why: "no back-off is longer (MaxContainerBackOff)" };

fn network() -> Topology {
    Topology::new()
        .router("node")
        .hosts(["pod", "neighbour"])
        .link("node 10.0.0.1/24", "pod 10.0.0.2/24")
        .link("neighbour 10.0.1.2/24", "node 10.0.1.1/24")
        // As kube-proxy does for traffic to a service (--masquerade-all).
        .rule("node", Rule::masquerade("masquerade", "pod"))
        .sysctl_where_known("node", TIMESTAMPS, 2)
        .sysctl_where_known("neighbour", TIMESTAMPS, 2)
}

#[derive(Debug, Clone)]
struct Conduct {
    /// The numbers of the probes during which the node is busy.
    busy_at: Vec<u32>,
    /// timeoutSeconds, and failureThreshold of each probe.
    timeout: u64,
    readiness: u32,
    liveness: u32,
    /// Whether the links are wires: one shifts a neighbour's timestamps ahead,
    /// one is the model of the tcp_tw_recycle check.
    tw_recycle: bool,
    /// The numbers of the probes that lose the first two SYNs of a connection.
    syn_lost_at: Vec<u32>,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct {
        busy_at: vec![],
        timeout: 1,
        readiness: 3,
        liveness: 3,
        tw_recycle: false,
        syn_lost_at: vec![],
    };
    let burst = vec![1, 2, 3, 6, 7, 8];
    let lose_syns = |setup: &mut Setup<Conduct>, at: &[u32]| {
        setup.network.links[0].wired = true;
        setup.syn_lost_at = at.to_vec();
    };
    let lasting = || (1..=PERIODS).collect();
    let patient = |conduct: &mut Conduct| (conduct.readiness, conduct.liveness) = (6, 6);
    Arms::control("the agent has the CPU that it needs", network(), base)
        .fault("three probes of five meet a busy node: the agent answers after 1.5 s", |arm| {
            arm.busy_at.clone_from(&burst);
        })
        .variant("lasting-load", "the node stays busy", |arm| arm.busy_at = lasting())
        .variant_of_control(
            "model-tw-recycle",
            "no load, but the check of tcp_tw_recycle, the model of 3.17 to 4.11, before the pod",
            |arm| {
                arm.network.links.iter_mut().for_each(|link| link.wired = true);
                arm.tw_recycle = true;
            },
        )
        .variant_of_control(
            "lost-syns",
            "no load, but three probes of five lose the first two SYNs of a connection",
            |arm| lose_syns(arm, &burst),
        )
        .variant_of_control("lost-syns-timeout-5", "the same, timeoutSeconds=5", |arm| {
            lose_syns(arm, &burst);
            arm.timeout = 5;
        })
        .remedy("timeout-5", "timeoutSeconds=5", |arm| arm.timeout = 5)
        .remedy("threshold-6", "failureThreshold=6", |arm| patient(arm))
        .remedy("threshold-6-lasting", "failureThreshold=6, and the node stays busy", |arm| {
            patient(arm);
            arm.busy_at = lasting();
        })
        .remedy("patient-liveness", "failureThreshold=6 of the liveness probe only", |arm| {
            arm.liveness = 6;
        })
}

const AGENT: ([u8; 4], u16) = ([10, 0, 0, 2], 8080);
/// More than one second, less than five, and shorter than any period.
const BUSY: Duration = Duration::from_millis(1500);
/// Two bursts of load, and the probes after them.
const PERIODS: u32 = 10;

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (period, busy_at) = (stage.env.seconds("period"), conduct.busy_at.clone());
    let spec = |failure_threshold| {
        let timeout = Duration::from_secs(conduct.timeout);
        Spec { period, timeout, failure_threshold, ..Spec::default() }
    };
    // The neighbour connects in every arm; only the server's check does harm.
    if conduct.tw_recycle {
        stage.wire("neighbour", "node", policy::ShiftTimestampClock::new(Direction::There, TICKS_APART))?;
        stage.wire("node", "pod", TwRecycle::new(tw_recycle::Rule::From3_17, Direction::There).0)?;
    }
    let turn = Rc::new(Cell::new(0));
    if !conduct.syn_lost_at.is_empty() {
        let (probe, lost_at, mut known) = (Rc::clone(&turn), conduct.syn_lost_at.clone(), vec![]);
        stage.wire(
            "node",
            "pod",
            policy::Discard::matching(move |_, segment| {
                let port = segment.header.src.port();
                let lost = segment.header.flags.opens()
                    && lost_at.contains(&probe.get())
                    && known.iter().filter(|other| **other == port).count() < 2;
                if lost {
                    known.push(port);
                }
                lost
            }),
        )?;
    }
    let probe = Rc::clone(&turn);
    let agent = Agent::new(stage.host("pod"), AGENT.1, move || {
        if busy_at.contains(&probe.get()) { BUSY } else { Duration::ZERO }
    });
    let mut kubelet = Kubelet::new(
        stage.host("node"),
        "agent",
        agent,
        Worker::new(Purpose::Readiness, spec(conduct.readiness)),
        Worker::new(Purpose::Liveness, spec(conduct.liveness)),
        BackOff::new(stage.env.seconds("back-off")),
    );
    let neighbour = async {
        stage.pass(period / 2).await;
        loop {
            get(stage.host("neighbour"), AGENT.into(), Duration::from_secs(conduct.timeout)).await?;
            stage.pass(period * 2).await;
        }
    };
    stage.beside(kubelet.run(PERIODS, |passed| turn.set(passed)), neighbour).await?;

    stage.observe("restarts", kubelet.restarts);
    let ready: Vec<_> = kubelet.ready.iter().map(|ready| if *ready { "1/1" } else { "0/1" }).collect();
    stage.observe("READY", ready.join(", "));
    for words in [
        "Readiness probe failed",
        "Liveness probe failed",
        "while waiting for connection",
        "will be restarted",
        "Back-off restarting",
    ] {
        let count = kubelet.events.iter().filter(|event| event.message.contains(words)).count();
        stage.observe(words, if count == 0 { "-".to_owned() } else { format!("x{count}") });
    }
    let resets = stage.counters("node")?.get("OutRsts").unwrap_or(0);
    stage.observe("answers that came too late", if resets == 0 { "none" } else { "met a RST" });
    for (event, count) in kubelet.counted() {
        stage.because(format!("{event} (x{count})"));
    }
    Ok(())
}
