//! "Pods stay Terminating, and a while later the node is NotReady: PLEG is not
//! healthy: pleg was last seen active 3m12s ago; threshold is 3m0s."

use std::pin::pin;

use lab::prelude::*;
use lab::probe::{Blocker, DeviceHolder, RtnlHolder};
use tokio::time::timeout;

use crate::node_agent::{NodeAgent, go};
use crate::teardown::PATIENCE;

const CARD: Card = Card {
    name: "pod-stuck-terminating",
    title: "One veth that cannot be deleted makes a pod stay Terminating and a node NotReady",
    family: "teardown hangs",
    saw: "A pod stays Terminating, `kubectl delete --force` only hides it, and minutes later the node is \
          NotReady: \"PLEG is not healthy: pleg was last seen active 3m12s ago; threshold is 3m0s\". Its \
          other pods serve on. On the node a CNI plugin is in state D or a zombie.",
    cause: "The plugin sleeps in the kernel, for a reference to the veth or for the RTNL mutex. The teardown \
            waits for it with the pod's lock, and the relist that asks for every pod's state waits for the \
            lock.",
    function: "net/core/dev.c: netdev_run_todo; pkg/kubelet/pleg/generic.go: relist, Healthy",
    cure: "End the holder. A deadline for the plugin keeps the node Ready, though SIGKILL cannot end what is \
           in state D; asking again then finds no such device, which is as good as done.",
    reading: &[
        "kubernetes/kubernetes#45419: PLEG is not healthy",
        "pkg/kubelet/dockershim/network/plugins.go: TearDownPod, GetPodNetworkStatus (up to Kubernetes 1.23)",
        "CNI specification, DEL: plugins should complete without error even if resources are missing",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the teardown", "done"), arms, play)
        .needs([Need::Veth, Need::PacketSocket, Need::TokenBucket])
        // If one arm stalls the RTNL mutex, all others stall too.
        .sequential(|env| env.clock == Clock::Virtual)
        .recheck(Recheck::Look)
        .settings([
            Setting::seconds("threshold", "relistThreshold, the kubelet's", 6, 180),
            Setting::seconds("deadline", "runtimeRequestTimeout, the deadline of a plugin", 2, 120),
        ])
        .lasts(|env| 2 * env.seconds("deadline") + 2 * env.seconds("threshold"))
        .eras([Era::every_kernel("a task in state D takes no signal")])
}

fn network() -> Topology {
    Topology::new()
        .router("node")
        .hosts(["pod-a", "pod-b", "pod-c", "sink"])
        .link("node 10.0.1.1/24", "pod-a 10.0.1.2/24")
        .interfaces("pod-a", "eth0")
        .own_device("pod-a")
        .link("node 10.0.2.1/24", "pod-b 10.0.2.2/24")
        .link("node 10.0.3.1/24", "pod-c 10.0.3.2/24")
        .link("node 10.0.4.1/24", "sink 10.0.4.2/24")
}

/// What another process holds when the pod is deleted.
#[derive(Debug, Clone, Copy)]
enum Held {
    Nothing,
    TheVeth,
    TheRtnlMutex,
}

#[derive(Debug, Clone)]
struct Conduct {
    held: Held,
    holder_ends: bool,
    /// How long the agent waits for a plugin.
    deadline: Option<Duration>,
    retries: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let deadline = Some(env.seconds("deadline"));
    let base = Conduct { held: Held::Nothing, holder_ends: false, deadline: None, retries: false };
    Arms::control(
        "nothing holds the veth; the agent waits for the plugin without a deadline, and reaps nothing",
        network(),
        base,
    )
    .fault("a packet socket sleeps in sendto() to the veth", |arm| arm.held = Held::TheVeth)
    .variant("rtnl-stalled", "a process holds the RTNL mutex instead", |arm| {
        arm.held = Held::TheRtnlMutex;
    })
    .only_where(env.clock == Clock::Virtual)
    .remedy("end-the-holder", "the program that sleeps in sendto() is ended by a signal", |arm| {
        arm.holder_ends = true;
    })
    .remedy("deadline", "after a deadline the agent kills the plugin, reaps it and gives up", |arm| {
        arm.deadline = deadline;
    })
    .remedy("deadline-and-retry", "the same, and then it tries again", |arm| {
        (arm.deadline, arm.retries) = (deadline, true);
    })
    .no_effect_if(env.seconds("deadline") > env.seconds("threshold"), || {
        let (deadline, threshold) = (env.word("deadline"), env.word("threshold"));
        format!("a deadline of {deadline} s is longer than the threshold of {threshold} s")
    })
}

/// The relist period, and some time for a late relist.
const PERIOD: Duration = Duration::from_secs(2);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let link = stage.own_device("pod-a");
    let agent = NodeAgent::new(stage, &[("pod-a", &link), ("pod-b", "pod-b"), ("pod-c", "pod-c")]);
    stage.beside(Box::pin(terminate(stage, conduct, &agent, &link)), agent.relist()).await
}

async fn terminate(stage: &Stage<'_>, conduct: &Conduct, agent: &NodeAgent<'_>, link: &str) -> Result<()> {
    let (node, pod_c, threshold) = (stage.host("node"), stage.host("pod-c"), stage.env.seconds("threshold"));
    let mut flow = Flow::open(stage.host("pod-b"), (pod_c.address(), 80), pod_c, 80).await?;
    // Begin between two relists: the pod's lock is free then.
    agent.two_relists().await?;
    let mut hold = match conduct.held {
        Held::Nothing => None,
        Held::TheVeth => Some(Blocker::Device(DeviceHolder::hold(node, link, "sink").await?)),
        Held::TheRtnlMutex => Some(Blocker::Rtnl(RtnlHolder::hold(node, "pod-b").await?)),
    };
    let mut teardown = pin!(agent.tear_down(0, conduct.deadline));
    let mut met = timeout(Duration::from_secs(1), &mut teardown).await.ok().transpose()?;
    if conduct.holder_ends
        && let Some(hold) = hold.take()
    {
        hold.end().await;
    }
    if met.is_none() {
        met = timeout(threshold + PERIOD, &mut teardown).await.ok().transpose()?;
    }
    if met == Some(false) && conduct.retries {
        met = Some(agent.tear_down(0, conduct.deadline).await?);
    }
    if met.is_some() {
        agent.two_relists().await?;
    }

    stage.observe("the teardown", NodeAgent::met(met));
    let over = if agent.longest() > threshold { "over" } else { "under" };
    stage.observe("longest relist", format!("{over} {}", go(threshold)));
    stage.observe("the node", agent.node(threshold));
    let spoken = flow.exchange(Side::Client, PATIENCE).await?;
    stage.observe("other pods' traffic", if spoken == Answer::Received { "works" } else { "waits" });
    agent.see_plugin(0, "the plugin's process").await;
    let sleeps = agent.plugin(0).and_then(|plugin| plugin.sleeps_in());
    let plugin = match (met, sleeps) {
        (Some(true), _) => "the teardown was done".to_owned(),
        (_, Some(place)) => format!("the plugin slept in {place}"),
        (_, None) => "a worker may not see where the plugin slept; a guest shows it (--kernel)".to_owned(),
    };
    stage.because(format!("{}; {plugin}", agent.health(threshold)));
    let Some(hold) = hold else { return Ok(()) };
    let look = async || {
        if met.is_none() {
            met = timeout(PATIENCE, &mut teardown).await.ok().and_then(Result::ok);
        }
        stage.observe("the teardown", NodeAgent::met(met));
    };
    stage.hold_for_shell(look).await;
    hold.end().await;
    if met.is_none() {
        met = timeout(PATIENCE, &mut teardown).await.ok().transpose()?;
    } else if met == Some(false) {
        met = Some(agent.tear_down(0, conduct.deadline).await?);
    }
    stage.observe("after the holder's end", NodeAgent::met(met));
    agent.two_relists().await?;
    stage.observe("the node then", agent.node(threshold));
    if let (Some(plugin), Some(_)) = (agent.plugin(0), conduct.deadline) {
        plugin.ends_within(PATIENCE).await;
        plugin.reap();
    }
    agent.see_plugin(0, "its process then").await;
    Ok(())
}
