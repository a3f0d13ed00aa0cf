//! "Readiness probe failed: context deadline exceeded", on and off, since an
//! eviction put more load on the node. And then the restarts.
//!
//! timeoutSeconds is 1 where nobody set it. An agent that is starved of CPU
//! answers in 1.5 s, and its answer meets a RST: the kubelet has closed the
//! connection. Three such in a row make the pod unready by its readiness probe,
//! and by its liveness probe kill a container that does its work.
//!
//! A probe can time out on an idle agent, too: where its server has
//! tcp_tw_recycle and a neighbour with a newer clock calls under the node's
//! address, the kubelet's SYNs are dropped. That is tw-recycle-pod-and-node again.
//!
//! A load that a lab puts on a CPU is no two times alike. So the agent itself
//! waits 1.5 s where a busy CPU would make it wait. The questions, the answers
//! and the RSTs are a real kernel's, and the rules are the kubelet's.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lab::Result;
use lab::probe::Kubelet;
use lab::probe::http::{Agent, get};
use lab::probe::prober::{BackOff, Purpose, Spec, Worker};
use lab::scenario::{Arm, Card, Clock, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::Rule;
use lab::wire::Way;
use lab::wire::policy::ShiftTimestampClock;
use lab::wire::tw_recycle::{self, TwRecycle};

use crate::one_address::{HOUR, TIMESTAMPS};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "probe-timeout",
            title: "A busy agent answers its health probe in 1.5 s, and timeoutSeconds is 1",
            family: "health probes",
            saw: "kubectl get events: \"Readiness probe failed: Get http://...: context deadline exceeded (Client.Timeout \
              exceeded while awaiting headers)\", on and off since pods were evicted to this node. Then \"failed \
              liveness probe, will be restarted\", and the restarts make the node busier still.",
            cause: "timeoutSeconds is 1 by default and counts from the SYN to the header. What answers later has failed, \
                however well it works. failureThreshold such probes in a row, 3 by default, make a pod unready; of a \
                liveness probe, they restart its container.",
            function: "pkg/kubelet/prober/worker.go: doProbe (Kubernetes)",
            cure: "timeoutSeconds above what the agent needs on its worst day. A higher failureThreshold rides out a \
               burst, and only puts off what a lasting load does. A liveness probe more patient than the readiness \
               probe ends the restarts and lets the pod leave its Service meanwhile.",
            reading: &[
                "Kubernetes, Configure Liveness, Readiness and Startup Probes",
                "kubernetes#94115: timeoutSeconds counts for exec probes too, which it did not before 1.20",
                "pkg/probe/http/http.go: one connection per probe",
            ],
        },
        needs: &[Need::Veth, Need::Nat, Need::Conntrack, Need::PacketSocket],
        wedges: false,
        // Nobody waits for virtual time, and eight arms at once would be the load.
        apart: |ground| ground.clock == Clock::Virtual,
        recheck: Recheck::Replay,
        settings: &[
            Setting::seconds("period", "periodSeconds", 2, 10),
            Setting::seconds("back-off", "the first wait of CrashLoopBackOff, the kubelet's", 2, 10),
        ],
        arms: &[
            Arm::control("the agent has the CPU that it needs"),
            Arm::fault("three probes of five meet a busy node: the agent answers after 1.5 s"),
            Arm::variant("lasting-load", "the node stays busy"),
            Arm::variant(
                "model-tw-recycle",
                "no load, but the check of tcp_tw_recycle, the model of 4.x, before the pod",
            ),
            Arm::remedy("timeout-5", "timeoutSeconds=5"),
            Arm::remedy("threshold-6", "failureThreshold=6"),
            Arm::remedy("threshold-6-lasting", "failureThreshold=6, and the node stays busy"),
            Arm::remedy("patient-liveness", "failureThreshold=6 of the liveness probe only"),
        ],
        eras: &[Era::every_kernel("the kernel has no part in it but to carry what comes too late")],
        symptom: Symptom { row: "restarts", healthy: "0" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const MODEL: &str = "model-tw-recycle";
const AGENT: ([u8; 4], u16) = ([10, 0, 0, 2], 8080);
/// More than one second and less than five, and than any period.
const BUSY: Duration = Duration::from_millis(1500);
/// Two bursts of load, and the probes after them.
const PERIODS: u32 = 10;

fn topology(plan: &Plan<'_>) -> Topology {
    let link = if plan.is(MODEL) { Topology::wire } else { Topology::link };
    let nodes = Topology::new().router("node").host("pod").host("neighbour");
    let near = link(nodes, "node 10.0.0.1/24", "pod 10.0.0.2/24");
    link(near, "neighbour 10.0.1.2/24", "node 10.0.1.1/24")
        // As kube-proxy does for what comes by a service (--masquerade-all).
        .rule("node", Rule::masquerade("masquerade", "pod"))
        .sysctl_where_known("node", TIMESTAMPS, 2)
        .sysctl_where_known("neighbour", TIMESTAMPS, 2)
}

/// Whether the node is busy at a probe.
fn busy(lasting: bool, probe: u32) -> bool {
    if lasting { probe > 0 } else { (1..=3).contains(&(probe % 5)) }
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let period = stage.ground.seconds("period");
    let arm = stage.acts;
    let spec = |failure_threshold| Spec {
        period,
        timeout: Duration::from_secs(if arm == "timeout-5" { 5 } else { 1 }),
        failure_threshold,
        ..Spec::default()
    };
    let readiness = spec(if arm.starts_with("threshold-6") { 6 } else { 3 });
    let liveness = spec(if arm == "patient-liveness" { 6 } else { readiness.failure_threshold });
    let lasting = arm.ends_with("lasting") || arm == "lasting-load";
    // The neighbour calls in every arm; it is the server's check that hurts.
    if stage.is(MODEL) {
        stage.wire("neighbour", "node", ShiftTimestampClock::new(Way::There, HOUR))?;
        stage.wire("node", "pod", TwRecycle::new(tw_recycle::Rule::V4, Way::There).0)?;
    }
    let loaded = stage.faulty() && !stage.is(MODEL);
    let turn = Rc::new(Cell::new(0));
    let probe = Rc::clone(&turn);
    let agent = Agent::new(stage.host("pod"), AGENT.1, move || {
        if loaded && busy(lasting, probe.get()) { BUSY } else { Duration::ZERO }
    });
    let mut kubelet = Kubelet::new(
        stage.host("node"),
        "agent",
        agent,
        Worker::new(Purpose::Readiness, readiness),
        Worker::new(Purpose::Liveness, liveness),
        BackOff::new(stage.ground.seconds("back-off")),
    );
    let neighbour = async {
        stage.pass(period / 2).await;
        loop {
            get(stage.host("neighbour"), AGENT.into(), liveness.timeout).await?;
            stage.pass(period * 2).await;
        }
    };
    stage.beside(kubelet.run(PERIODS, |passed| turn.set(passed)), neighbour).await?;

    stage.see("restarts", kubelet.restarts);
    let ready: Vec<_> = kubelet.ready.iter().map(|ready| if *ready { "1/1" } else { "0/1" }).collect();
    stage.see("READY", ready.join(", "));
    for words in
        ["Readiness probe failed", "Liveness probe failed", "will be restarted", "Back-off restarting"]
    {
        let count = kubelet.events.iter().filter(|event| event.message.contains(words)).count();
        stage.see(words, if count == 0 { "-".to_owned() } else { format!("x{count}") });
    }
    let resets = stage.counters("node")?.get("OutRsts").unwrap_or(0);
    stage.see("answers that came too late", if resets == 0 { "none" } else { "met a RST" });
    for (event, count) in kubelet.counted() {
        stage.because(format!("{event} (x{count})"));
    }
    Ok(())
}
