//! "`ip netns del` returns at once, and the veths of every container that was
//! ever stopped since are still there."
//!
//! A namespace dies while something holds a reference to one of its devices.
//! Namespaces are taken apart by one kernel thread (net/core/net_namespace.c:
//! cleanup_net), which sleeps until the reference is given back: whatever dies
//! later waits behind it. Up to 4.16 it holds net_mutex meanwhile, and no
//! namespace can be made, either.
//!
//! The reference is that of [`Holder`]: the packet socket of a sniffer on the
//! node that sleeps in sendto() while its device moves into a pod.

use std::time::Duration;

use lab::Result;
use lab::network::Namespace;
use lab::probe::{Attempt, Holder, link};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "netns-teardown-hang",
            title: "One namespace that cannot die keeps all later ones from being freed",
            family: "teardown hangs",
            saw: "Containers stop, and their veths stay on the bridge; `docker run` hangs (kernels up to 4.16); a kworker \
              of `netns` sits in state D; \"unregister_netdevice: waiting for vethX to become free\".",
            cause: "Something holds a reference to a device of a namespace that dies. One kernel thread takes all dead \
                namespaces apart, one batch after the other, and it waits for that reference.",
            function: "net/core/net_namespace.c: cleanup_net; net/core/dev.c: default_device_exit_batch, netdev_run_todo",
            cure: "End the holder: all that waited is freed. Or take the link out of the namespace before that dies, as \
               the CNI plugin host-device does: a move waits for no reference. Afterwards the link is in no list.",
            reading: &[
                "moby/moby#5618: unregister_netdevice: waiting for lo to become free",
                "Launchpad 1711407: unregister_netdevice: waiting for lo to become free, comment 27",
                "5aa3afe107d9 net: make unregister netdev warning timeout configurable (5.13)",
            ],
        },
        needs: &[Need::Veth, Need::PacketSocket, Need::TokenBucket, Need::KernelLog, Need::OwnKernel],
        wedges: false,
        // One thread for the whole kernel.
        apart: |_| true,
        recheck: Recheck::Look,
        settings: &[],
        arms: &[
            Arm::control("nothing holds the device"),
            Arm::fault("a packet socket sleeps in sendto() to the device"),
            Arm::remedy("end-the-holder", "the program that sleeps in sendto() is ended by a signal"),
            Arm::remedy("move-it-out", "the link is moved back to the node before its namespace dies"),
            Arm::remedy("delete-the-peer", "the other end of the veth pair is deleted afterwards"),
        ],
        eras: &[
            Era::new("counts-to-one", "5.13 and later", |ground| ground.kernel.at_least(5, 13))
                .since("the table of devices keeps one reference: one more is printed as 2"),
            Era::new("counts-to-zero", "4.17 to 5.12", |ground| ground.kernel.at_least(4, 17))
                .since("net_mutex is gone: namespaces can be made meanwhile"),
            Era::new("net-mutex", "up to 4.16", |_| true)
                .since("cleanup_net holds net_mutex, which copy_net_ns wants"),
        ],
        symptom: Symptom { row: "the link of the next dead namespace", healthy: "is freed" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// What a healthy kernel needs at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .host("node")
        .host("bridge")
        .link("node 10.0.0.1/24", "bridge 10.0.0.2/24")
        .interfaces(&plan.own_device("veth"), "pod")
        .link("node 10.0.1.1/24", "bridge 10.0.1.2/24")
        .interfaces("slow", "sink")
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let (node, bridge, device) = (stage.host("node"), stage.host("bridge"), stage.own_device("veth"));
    let failed = |tried: &str, e: std::io::Error| lab::Error::kernel("node", tried, e);
    // Both pods are made before: up to 4.16 none is made meanwhile.
    let (pod, next) = (Namespace::new("pod")?, Namespace::new("next pod")?);
    link::add_veth(bridge.namespace(), "next", &next, "eth0").map_err(|e| failed("add a veth", e))?;
    let mut holder = if stage.faulty() { Some(Holder::hold(node, &device, "slow").await?) } else { None };
    link::move_to(node.namespace(), &device, &pod).map_err(|e| failed("move a link", e))?;

    if stage.is("move-it-out") {
        link::move_to(&pod, &device, node.namespace()).map_err(|e| failed("move a link back", e))?;
    }
    // A namespace dies with its last descriptor.
    drop(pod);
    stage.pass(Duration::from_secs(1)).await;
    if stage.is("end-the-holder") {
        holder.take().into_iter().for_each(Holder::end);
    }
    if stage.is("delete-the-peer") {
        let mut delete = Attempt::begin(bridge, |ns| link::delete(ns, "pod"))?;
        stage.see("the other delete", link::met(delete.within(PATIENCE).await));
    }
    drop(next);
    let freed = |is: bool| if is { "is freed" } else { "stays" };
    stage.see("the link of the next dead namespace", freed(link::vanishes(bridge, "next", PATIENCE).await));

    let works = |done: bool| if done { "works" } else { "waits" };
    let mut make = Attempt::begin(node, |_| Namespace::new("new").is_ok())?;
    stage.see("others make a namespace", works(make.within(PATIENCE).await == Some(&true)));
    let mut list = Attempt::begin(node, |ns| link::list(ns).is_ok())?;
    stage.see("others list links", works(list.within(PATIENCE).await == Some(&true)));
    let there = bridge.namespace().try_clone()?;
    let mut add = Attempt::begin(node, move |ns| link::add_veth(ns, "new", &there, "new").is_ok())?;
    stage.see("others add a link", works(add.within(PATIENCE).await == Some(&true)));

    let line = stage.unregister_netdevice(&device, holder.is_some()).await?;
    stage.see("Usage count logged", line.as_ref().map_or("-".to_owned(), |w| w.usage_count.to_string()));
    let Some(holder) = holder else { return Ok(()) };
    let look = async || {
        let gone = link::vanishes(bridge, "next", PATIENCE).await;
        stage.see("the link of the next dead namespace", freed(gone));
    };
    stage.stays(look).await;
    let waited = stage.elapsed();
    holder.end();
    if stage.is("move-it-out") {
        return Ok(());
    }
    let all = make.within(PATIENCE).await == Some(&true)
        && link::vanishes(bridge, "pod", PATIENCE).await
        && link::vanishes(bridge, "next", PATIENCE).await;
    stage.see("after the holder's end", if all { "all is freed" } else { "something stays" });
    stage.because(format!(
        "a dead namespace waited for {:.0} s, as long as a packet socket held its {device}{}",
        waited.as_secs_f32(),
        line.map_or(String::new(), |line| format!("; the kernel: {line}")),
    ));
    Ok(())
}
