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
          node. Then \"failed liveness probe, will be restarted\", and the restarts make the node busier \
          still.",
    cause: "timeoutSeconds is 1 by default and counts from the SYN to the header. What answers later has \
            failed, however well it works. failureThreshold such probes in a row, 3 by default, make a pod \
            unready; of a liveness probe, they restart its container.",
    function: "pkg/kubelet/prober/worker.go: doProbe (Kubernetes)",
    cure: "timeoutSeconds above what the agent needs on its worst day. A higher failureThreshold rides out a \
           burst, and only puts off what a lasting load does. A liveness probe more patient than the \
           readiness probe ends the restarts and lets the pod leave its Service meanwhile.",
    reading: &[
        "Kubernetes, Configure Liveness, Readiness and Startup Probes",
        "kubernetes#94115: timeoutSeconds counts for exec probes too, which it did not before 1.20",
        "pkg/probe/http/http.go: one connection per probe",
        "net/http: \"request canceled while waiting for connection\" before the same words says that not even the \
         handshake ended in time: look for a lost SYN, not for a slow agent",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("restarts", "0"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket])
        // Eight arms at once would load the machine. In virtual time, running
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
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { busy_at: vec![], timeout: 1, readiness: 3, liveness: 3, tw_recycle: false };
    let lasting = || (1..=PERIODS).collect();
    let patient = |conduct: &mut Conduct| (conduct.readiness, conduct.liveness) = (6, 6);
    Arms::control("the agent has the CPU that it needs", network(), base)
        .fault("three probes of five meet a busy node: the agent answers after 1.5 s", |arm| {
            arm.busy_at = vec![1, 2, 3, 6, 7, 8];
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
    for words in
        ["Readiness probe failed", "Liveness probe failed", "will be restarted", "Back-off restarting"]
    {
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
