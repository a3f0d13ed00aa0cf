//! "Pods stay Terminating, and a while later the node is NotReady: PLEG is not
//! healthy: pleg was last seen active 3m12s ago; threshold is 3m0s."
//!
//! What a kubelet makes of a delete that hangs (net/core/dev.c: netdev_run_todo)
//! or of a stalled RTNL mutex. The plugin that deletes the pod's veth sleeps in
//! state D, the teardown waits for it with the pod's lock, and the relist of all
//! pods waits for that lock. See [`NodeAgent`] for the stand-in.

use std::pin::pin;
use std::time::Duration;

use lab::Result;
use lab::probe::{Answer, Flow, Hold, Holder, RtnlHolder, Side};
use lab::scenario::{Arm, Card, Clock, Era, Fault, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use tokio::time::timeout;

use crate::node_agent::{NodeAgent, go};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "pod-stuck-terminating",
            title: "One veth that cannot be deleted makes a pod stay Terminating and a node NotReady",
            family: "teardown hangs",
            saw: "A pod stays Terminating, `kubectl delete --force` only hides it, and minutes later the node is NotReady: \
              \"PLEG is not healthy: pleg was last seen active 3m12s ago; threshold is 3m0s\". Its other pods serve \
              on. On the node a CNI plugin is in state D or a zombie.",
            cause: "The plugin sleeps in the kernel, for a reference to the veth or for the RTNL mutex. The teardown waits \
                for it with the pod's lock, and the relist that asks for every pod's state waits for the lock.",
            function: "net/core/dev.c: netdev_run_todo; pkg/kubelet/pleg/generic.go: relist, Healthy",
            cure: "End the holder. A deadline for the plugin keeps the node Ready, though SIGKILL cannot end what is in \
               state D; asking again then finds no such device, which is as good as done.",
            reading: &[
                "kubernetes/kubernetes#45419: PLEG is not healthy",
                "pkg/kubelet/dockershim/network/plugins.go: TearDownPod, GetPodNetworkStatus (up to Kubernetes 1.23)",
                "CNI specification, DEL: plugins should complete without error even if resources are missing",
            ],
        },
        needs: &[Need::Veth, Need::PacketSocket, Need::TokenBucket],
        wedges: false,
        // Where one arm stalls the RTNL mutex, the others would stall with it.
        apart: |ground| ground.clock == Clock::Virtual,
        recheck: Recheck::Look,
        settings: &[
            Setting::seconds("threshold", "relistThreshold, the kubelet's", 6, 180),
            Setting::seconds("deadline", "runtimeRequestTimeout, the deadline of a plugin", 2, 120),
        ],
        arms: &[
            Arm::control(
                "nothing holds the veth; the agent waits for the plugin without a deadline, and reaps nothing",
            ),
            Arm::fault("a packet socket sleeps in sendto() to the veth"),
            Arm::variant("rtnl-stalled", "a process holds the RTNL mutex instead")
                .only_where(|ground| ground.clock == Clock::Virtual),
            Arm::remedy("end-the-holder", "the program that sleeps in sendto() is ended by a signal"),
            Arm::remedy("deadline", "after a deadline the agent kills the plugin, reaps it and gives up"),
            Arm::remedy("deadline-and-retry", "the same, and then it tries again"),
        ],
        eras: &[Era::every_kernel("a task in state D takes no signal")],
        symptom: Symptom { row: "the teardown", healthy: "done" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// What a healthy kernel needs at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .router("node")
        .hosts(["pod-a", "pod-b", "pod-c", "sink"])
        .link("node 10.0.1.1/24", "pod-a 10.0.1.2/24")
        .interfaces(&plan.own_device("pod-a"), "eth0")
        .link("node 10.0.2.1/24", "pod-b 10.0.2.2/24")
        .link("node 10.0.3.1/24", "pod-c 10.0.3.2/24")
        .link("node 10.0.4.1/24", "sink 10.0.4.2/24")
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let link = stage.own_device("pod-a");
    let agent = NodeAgent::new(stage, &[("pod-a", &link), ("pod-b", "pod-b"), ("pod-c", "pod-c")]);
    stage.beside(Box::pin(terminate(stage, &agent, &link)), agent.relist()).await
}

async fn terminate(stage: &Stage<'_>, agent: &NodeAgent<'_>, link: &str) -> Result<()> {
    let (node, pod_c, threshold) =
        (stage.host("node"), stage.host("pod-c"), stage.ground.seconds("threshold"));
    let mut flow = Flow::open(stage.host("pod-b"), (pod_c.address(), 80), pod_c, 80).await?;
    // Between two relists: the teardown is to find the pod's lock free.
    agent.two_relists().await?;
    let mut hold = match stage.acts {
        "control" => None,
        "rtnl-stalled" => Some(Hold::Rtnl(RtnlHolder::hold(node, "pod-b").await?)),
        _ => Some(Hold::Device(Holder::hold(node, link, "sink").await?)),
    };
    let retry = stage.is("deadline-and-retry");
    let deadline = (retry || stage.is("deadline")).then(|| stage.ground.seconds("deadline"));
    let mut teardown = pin!(agent.tear_down(0, deadline));
    let mut met = timeout(Duration::from_secs(1), &mut teardown).await.ok().transpose()?;
    if stage.is("end-the-holder")
        && let Some(hold) = hold.take()
    {
        hold.end().await;
    }
    if met.is_none() {
        met = timeout(threshold + PERIOD, &mut teardown).await.ok().transpose()?;
    }
    if met == Some(false) && retry {
        met = Some(agent.tear_down(0, deadline).await?);
    }
    if met.is_some() {
        agent.two_relists().await?;
    }

    stage.see("the teardown", NodeAgent::met(met));
    let over = if agent.longest() > threshold { "over" } else { "under" };
    stage.see("longest relist", format!("{over} {}", go(threshold)));
    stage.see("the node", agent.node(threshold));
    let spoken = flow.exchange(Side::Client, PATIENCE).await?;
    stage.see("other pods' traffic", if spoken == Answer::Received { "works" } else { "waits" });
    agent.see_plugin(0, "the plugin's process").await;
    let Some(hold) = hold else { return Ok(()) };
    let look = async || {
        if met.is_none() {
            met = timeout(PATIENCE, &mut teardown).await.ok().and_then(Result::ok);
        }
        stage.see("the teardown", NodeAgent::met(met));
    };
    stage.stays(look).await;
    let sleeps = agent.plugin(0).and_then(|plugin| plugin.sleeps_in());
    let sleeps = sleeps.as_deref().unwrap_or("a place that only root may see");
    stage.because(format!("{}; the plugin slept in {sleeps}", agent.health(threshold)));
    hold.end().await;
    if met.is_none() {
        met = timeout(PATIENCE, &mut teardown).await.ok().transpose()?;
    } else if met == Some(false) {
        met = Some(agent.tear_down(0, deadline).await?);
    }
    stage.see("after the holder's end", NodeAgent::met(met));
    agent.two_relists().await?;
    stage.see("the node then", agent.node(threshold));
    if let (Some(plugin), Some(_)) = (agent.plugin(0), deadline) {
        plugin.ends_within(PATIENCE).await;
        plugin.reap();
    }
    agent.see_plugin(0, "its process then").await;
    Ok(())
}

/// The period of a relist, and what a late one needs besides.
const PERIOD: Duration = Duration::from_secs(2);
