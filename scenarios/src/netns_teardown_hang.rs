//! "`ip netns del` returns at once, and the veths of every container that was
//! ever stopped since are still there."
//!
//! A sniffer on the node sleeps in sendto() while its device moves into a pod.

use lab::prelude::*;
use lab::probe::DeviceHolder;

use crate::teardown::{self, Conduct, PATIENCE, Tried, works};

const CARD: Card = Card {
    name: "netns-teardown-hang",
    title: "One namespace that cannot die keeps all later ones from being freed",
    family: "teardown hangs",
    saw: "Containers stop, and their veths stay on the bridge; `docker run` hangs (kernels up to 4.16); a \
          kworker of `netns` sits in state D; \"unregister_netdevice: waiting for vethX to become free\".",
    cause: "Something holds a reference to a device of a namespace that dies. One kernel thread takes all \
            dead namespaces apart, one batch after the other, and it waits for that reference.",
    function: "net/core/net_namespace.c: cleanup_net; net/core/dev.c: default_device_exit_batch, \
               netdev_run_todo",
    cure: "End the holder: all that waited is freed. Or take the link out of the namespace before that dies, \
           as the CNI plugin host-device does: a move waits for no reference. Afterwards the link is in no \
           list.",
    reading: &[
        "moby/moby#5618: unregister_netdevice: waiting for lo to become free",
        "Launchpad 1711407: unregister_netdevice: waiting for lo to become free, comment 27",
        "5aa3afe107d9 net: make unregister netdev warning timeout configurable (5.13)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the link of the next dead namespace", "is freed"), |_| arms(), play)
        .needs([Need::Veth, Need::PacketSocket, Need::TokenBucket, Need::KernelLog, Need::ExclusiveKernel])
        // One thread frees the namespaces of the whole kernel.
        .sequential(|_| true)
        .recheck(Recheck::Look)
        .eras([
            Era::new("counts-to-one", "5.13 and later", |env| env.kernel.at_least(5, 13))
                .since("the table of devices keeps one reference: one more is printed as 2"),
            Era::new("counts-to-zero", "4.17 to 5.12", |env| env.kernel.at_least(4, 17))
                .since("net_mutex is gone: namespaces can be made meanwhile"),
            Era::new("net-mutex", "up to 4.16", |_| true)
                .since("cleanup_net holds net_mutex, which copy_net_ns wants"),
        ])
}

fn network() -> Topology {
    Topology::new()
        .hosts(["node", "bridge"])
        .link("node 10.0.0.1/24", "bridge 10.0.0.2/24")
        .interfaces("veth", "pod")
        .own_device("veth")
        .link("node 10.0.1.1/24", "bridge 10.0.1.2/24")
        .interfaces("slow", "sink")
}

fn arms() -> Arms<Conduct> {
    teardown::arms(network())
        .remedy("move-it-out", "the link is moved back to the node before its namespace dies", |arm| {
            arm.tried = Tried::MoveItOut;
        })
        .remedy("delete-the-peer", "the other end of the veth pair is deleted afterwards", |arm| {
            arm.tried = Tried::DeleteThePeer;
        })
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (node, bridge, device) = (stage.host("node"), stage.host("bridge"), stage.own_device("veth"));
    let failed = |tried: &'static str| move |e| Error::kernel("node", tried, e);
    // Create both pods first: up to 4.16, no namespace can be created during
    // the hang.
    let (pod, next) = (Namespace::new("pod")?, Namespace::new("next pod")?);
    link::add_veth(bridge.namespace(), "next", &next, "eth0").map_err(failed("add a veth"))?;
    let mut holder = conduct.hold(node, &device).await?;
    link::move_to(node.namespace(), &device, &pod).map_err(failed("move a link"))?;
    if conduct.tried == Tried::MoveItOut {
        link::move_to(&pod, &device, node.namespace()).map_err(failed("move a link back"))?;
    }
    // A namespace dies when its last descriptor is closed.
    drop(pod);
    stage.pass(Duration::from_secs(1)).await;
    if conduct.tried == Tried::EndTheHolder {
        holder.take().into_iter().for_each(DeviceHolder::end);
    }
    if conduct.tried == Tried::DeleteThePeer {
        let mut delete = Attempt::begin(bridge, |ns| link::delete(ns, "pod"))?;
        stage.observe("the other delete", link::met(delete.within(PATIENCE).await));
    }
    drop(next);
    let see = |is: bool| {
        stage.observe("the link of the next dead namespace", if is { "is freed" } else { "stays" });
    };
    let freed = link::vanishes(bridge, "next", PATIENCE).await;
    see(freed);

    let mut make = Attempt::begin(node, |_| Namespace::new("new").is_ok())?;
    stage.observe("others make a namespace", works(make.within(PATIENCE).await == Some(&true)));
    let mut list = Attempt::begin(node, |ns| link::list(ns).is_ok())?;
    stage.observe("others list links", works(list.within(PATIENCE).await == Some(&true)));
    let there = bridge.namespace().try_clone()?;
    let mut add = Attempt::begin(node, move |ns| link::add_veth(ns, "new", &there, "new").is_ok())?;
    stage.observe("others add a link", works(add.within(PATIENCE).await == Some(&true)));

    let line = teardown::usage_count(stage, &device, !freed).await?;
    let waited = stage.elapsed().as_secs_f32();
    let next = if freed { "was freed" } else { "still waited" };
    stage.because(format!("after {waited:.0} s the namespace behind that of {device} {next}{line}"));
    if let Some(holder) = holder.filter(|_| !freed) {
        stage.hold_for_shell(async || see(link::vanishes(bridge, "next", PATIENCE).await)).await;
        holder.end();
        let all = make.within(PATIENCE).await == Some(&true)
            && link::vanishes(bridge, "pod", PATIENCE).await
            && link::vanishes(bridge, "next", PATIENCE).await;
        stage.observe("after the holder's end", if all { "all is freed" } else { "something stays" });
    }
    Ok(())
}
