//! "Pods stay Terminating for ever; unregister_netdevice: waiting for vethX to
//! become free. Usage count = 1."

use lab::prelude::*;
use lab::probe::DeviceHolder;

use crate::teardown::{self, Conduct, PATIENCE, Tried};

const CARD: Card = Card {
    name: "veth-teardown-hang",
    title: "Deleting a veth waits for ever: unregister_netdevice: waiting for it to become free",
    family: "teardown hangs",
    saw: "Pods stay Terminating, `docker rm` hangs, and every terminal prints \"unregister_netdevice: \
          waiting for vethX to become free. Usage count = 1\" every ten seconds. (This scenario makes your \
          kernel print that line, too.)",
    cause: "Something holds a reference to the device. The delete takes the device out of every list, gives \
            the RTNL lock back, and sleeps until the count falls. The process that asked is in state D; \
            everyone else goes on.",
    function: "net/core/dev.c: netdev_run_todo, netdev_wait_allrefs_any (netdev_wait_allrefs up to 5.16)",
    cure: "End the holder: nothing else helps. Deleting again or deleting the peer finds no such device. \
           Where the kernel itself leaked the reference (route-exception-leak), only a reboot into a fixed \
           kernel.",
    reading: &[
        "moby/moby#5618: unregister_netdevice: waiting for lo to become free",
        "ee60ad219f5c route: set the deleted fnhe fnhe_daddr to 0 in ip_del_fnhe to fix a race (5.1)",
        "5aa3afe107d9 net: make unregister netdev warning timeout configurable (5.13)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the delete returns", "yes"), |_| arms(), play)
        .needs([Need::Veth, Need::PacketSocket, Need::TokenBucket, Need::KernelLog])
        .recheck(Recheck::Look)
        .eras([
            Era::new("counts-to-one", "5.13 and later", |env| env.kernel.at_least(5, 13))
                .since("the table of devices keeps one reference: one more is printed as 2"),
            Era::new("counts-to-zero", "up to 5.12", |_| true)
                .since("the wait ends at 0: one reference is printed as 1"),
        ])
}

fn network() -> Topology {
    Topology::new()
        .hosts(["node", "pod", "elsewhere"])
        .link("node 10.0.0.1/24", "pod 10.0.0.2/24")
        .interfaces("veth", "eth0")
        .own_device("veth")
        .link("node 10.0.1.1/24", "elsewhere 10.0.1.2/24")
        .interfaces("slow", "eth0")
}

fn arms() -> Arms<Conduct> {
    teardown::arms(network())
        .remedy("delete-again", "the device is deleted again", |arm| arm.tried = Tried::DeleteAgain)
        .remedy("delete-the-peer", "the other end of the veth pair is deleted", |arm| {
            arm.tried = Tried::DeleteThePeer;
        })
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (node, device) = (stage.host("node"), stage.own_device("veth"));
    let mut holder = conduct.hold(node, &device).await?;
    let name = device.clone();
    let mut delete = Attempt::begin(node, move |ns| link::delete(ns, &name))?;
    // Enough time for a hanging delete to become visible.
    delete.within(Duration::from_secs(1)).await;

    if conduct.tried == Tried::EndTheHolder {
        holder.take().into_iter().for_each(DeviceHolder::end);
    }
    let other = match conduct.tried {
        Tried::DeleteAgain => Some((node, device.clone())),
        Tried::DeleteThePeer => Some((stage.host("pod"), "eth0".to_owned())),
        _ => None,
    };
    if let Some((host, name)) = other {
        let mut attempt = Attempt::begin(host, move |ns| link::delete(ns, &name))?;
        stage.observe("the other delete", link::met(attempt.within(PATIENCE).await));
    }
    let returns =
        |returned: bool| stage.observe("the delete returns", if returned { "yes" } else { "waits" });
    let returned = delete.within(PATIENCE).await.is_some();
    returns(returned);
    teardown::others(stage, node).await?;
    let line = teardown::usage_count(stage, &device, !returned).await?;
    let waited = stage.elapsed().as_secs_f32();
    if let Some(holder) = holder {
        stage.hold_for_shell(async || returns(delete.within(PATIENCE).await.is_some())).await;
        holder.end();
        stage.observe("after the holder's end", link::met(delete.within(PATIENCE).await));
    }
    let then = if returned { "had returned" } else { "still waited" };
    stage.because(format!("after {waited:.0} s the delete of {device} {then}{line}"));
    Ok(())
}
