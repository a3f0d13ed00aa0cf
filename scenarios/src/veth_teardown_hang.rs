//! "Pods stay Terminating for ever; unregister_netdevice: waiting for vethX to
//! become free. Usage count = 1."
//!
//! A network device is deleted while something holds a reference to it. The
//! device is gone from every list at once, and the delete sleeps until the last
//! reference is given back. Here a packet socket that sleeps in sendto() holds
//! it (net/packet/af_packet.c: packet_snd), so an unmodified kernel hangs for
//! real, says so for real, and goes on when the holder ends.

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
            name: "veth-teardown-hang",
            title: "Deleting a veth waits for ever: unregister_netdevice: waiting for it to become free",
            family: "teardown hangs",
            saw: "Pods stay Terminating, `docker rm` hangs, and every terminal prints \"unregister_netdevice: waiting for \
              vethX to become free. Usage count = 1\" every ten seconds. (This scenario makes your kernel print \
              that line, too.)",
            cause: "Something holds a reference to the device. The delete takes the device out of every list, gives the \
                RTNL lock back, and sleeps until the count falls. The process that asked is in state D; everyone \
                else goes on.",
            function: "net/core/dev.c: netdev_run_todo, netdev_wait_allrefs_any (netdev_wait_allrefs up to 5.16)",
            cure: "End the holder: nothing else helps. Deleting again or deleting the peer finds no such device. Where \
               the kernel itself leaked the reference (route-exception-leak), only a reboot into a fixed kernel.",
            reading: &[
                "moby/moby#5618: unregister_netdevice: waiting for lo to become free",
                "ee60ad219f5c route: set the deleted fnhe fnhe_daddr to 0 in ip_del_fnhe to fix a race (5.1)",
                "5aa3afe107d9 net: make unregister netdev warning timeout configurable (5.13)",
            ],
        },
        needs: &[Need::Veth, Need::PacketSocket, Need::TokenBucket, Need::KernelLog],
        wedges: false,
        apart: |_| false,
        recheck: Recheck::Look,
        settings: &[],
        arms: &[
            Arm::control("nothing holds the device"),
            Arm::fault("a packet socket sleeps in sendto() to the device"),
            Arm::remedy("end-the-holder", "the program that sleeps in sendto() is ended by a signal"),
            Arm::remedy("delete-again", "the device is deleted again"),
            Arm::remedy("delete-the-peer", "the other end of the veth pair is deleted"),
        ],
        eras: &[
            Era::new("counts-to-one", "5.13 and later", |ground| ground.kernel.at_least(5, 13))
                .since("the table of devices keeps one reference: one more is printed as 2"),
            Era::new("counts-to-zero", "up to 5.12", |_| true)
                .since("the wait ends at 0: one reference is printed as 1"),
        ],
        symptom: Symptom { row: "the delete returns", healthy: "yes" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// What a healthy kernel needs at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn topology(plan: &Plan<'_>) -> Topology {
    Topology::new()
        .hosts(["node", "pod", "elsewhere"])
        .link("node 10.0.0.1/24", "pod 10.0.0.2/24")
        .interfaces(&plan.own_device("veth"), "eth0")
        .link("node 10.0.1.1/24", "elsewhere 10.0.1.2/24")
        .interfaces("slow", "eth0")
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let (node, device) = (stage.host("node"), stage.own_device("veth"));
    let holder = if stage.faulty() { Some(Holder::hold(node, &device, "slow").await?) } else { None };
    let name = device.clone();
    let mut delete = Attempt::begin(node, move |ns| link::delete(ns, &name))?;
    // Time for a delete that hangs to show it.
    delete.within(Duration::from_secs(1)).await;

    let holder = match holder {
        Some(holder) if stage.is("end-the-holder") => {
            holder.end();
            delete.within(PATIENCE).await;
            None
        }
        other => other,
    };
    let again = match stage.acts {
        "delete-again" => Some(("node", device.clone())),
        "delete-the-peer" => Some(("pod", "eth0".to_owned())),
        _ => None,
    };
    if let Some((place, name)) = again {
        let mut attempt = Attempt::begin(stage.host(place), move |ns| link::delete(ns, &name))?;
        stage.see("the other delete", link::met(attempt.within(PATIENCE).await));
    }
    meanwhile(stage).await?;

    let line = stage.unregister_netdevice(&device, holder.is_some()).await?;
    if stage.log().readable() {
        stage.see("Usage count logged", line.as_ref().map_or("-".to_owned(), |w| w.usage_count.to_string()));
    } else {
        stage.cannot_see("Usage count logged", "the kernel log cannot be read without privilege");
    }
    let last_chance = if holder.is_some() { Duration::ZERO } else { PATIENCE };
    stage.see("the delete returns", if delete.within(last_chance).await.is_some() { "yes" } else { "waits" });
    if let Some(holder) = holder {
        let look = async || {
            let returned = delete.within(PATIENCE).await.is_some();
            stage.see("the delete returns", if returned { "yes" } else { "waits" });
        };
        stage.stays(look).await;
        let waited = stage.elapsed();
        holder.end();
        stage.see("after the holder's end", link::met(delete.within(PATIENCE).await));
        stage.because(format!(
            "the delete of {device} waited for {:.0} s, as long as a packet socket held the device{}",
            waited.as_secs_f32(),
            line.map_or(String::new(), |line| format!("; the kernel: {line}")),
        ));
    }
    Ok(())
}

/// What everyone else on the machine can still do.
async fn meanwhile(stage: &Stage<'_>) -> Result<()> {
    let node = stage.host("node");
    let works = |done: bool| if done { "works" } else { "waits" };
    let mut list = Attempt::begin(node, |ns| link::list(ns).is_ok())?;
    stage.see("others list links", works(list.within(PATIENCE).await == Some(&true)));
    let mut make = Attempt::begin(node, |_| Namespace::new("bystander"))?;
    stage.see("others make a namespace", works(make.within(PATIENCE).await.is_some_and(Result::is_ok)));
    let Some(Ok(bystander)) = make.take() else { return Ok(()) };
    let there = bystander.try_clone()?;
    let mut add = Attempt::begin(node, move |ns| link::add_veth(ns, "new", &there, "eth0").is_ok())?;
    stage.see("others add a link", works(add.within(PATIENCE).await == Some(&true)));
    // A namespace dies with its last descriptor, and its links with it.
    drop((bystander, add));
    stage.see("others delete one", works(link::vanishes(node, "new", 3 * PATIENCE).await));
    Ok(())
}
