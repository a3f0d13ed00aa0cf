//! The common parts of the scenarios in which a device cannot be freed.

use lab::evidence::kernel_log::StuckDevice;
use lab::prelude::*;
use lab::probe::DeviceHolder;

/// The most that a healthy kernel needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What happens to the device, and which remedy is tried.
#[derive(Debug, Clone)]
pub struct Conduct {
    pub device_is_held: bool,
    pub tried: Tried,
}

/// What people try when a teardown hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    Nothing,
    EndTheHolder,
    MoveItOut,
    DeleteAgain,
    DeleteThePeer,
}

/// The arms common to all of them.
pub fn arms(network: Topology) -> Arms<Conduct> {
    let base = Conduct { device_is_held: false, tried: Tried::Nothing };
    Arms::control("nothing holds the device", network, base)
        .fault("a packet socket sleeps in sendto() to the device", |arm| arm.device_is_held = true)
        .remedy("end-the-holder", "the program that sleeps in sendto() is ended by a signal", |arm| {
            arm.tried = Tried::EndTheHolder;
        })
}

impl Conduct {
    /// Starts the process that holds the node's device, if the conduct has one;
    /// `slow` is another device of the node.
    pub async fn hold(&self, node: &Host, device: &str) -> Result<Option<DeviceHolder>> {
        Ok(if self.device_is_held { Some(DeviceHolder::hold(node, device, "slow").await?) } else { None })
    }
}

/// The cell for another process's operation.
pub fn works(done: bool) -> &'static str {
    if done { "works" } else { "waits" }
}

/// Records the count in the kernel's log message about a device, and waits for
/// the message if the device `waits`. Returns the message as the end of a
/// sentence; empty if there is none.
pub async fn usage_count(stage: &Stage<'_>, device: &str, waits: bool) -> Result<String> {
    let line = unregister_netdevice(stage, device, waits).await?;
    if stage.log().readable() {
        stage.observe(
            "Usage count logged",
            line.as_ref().map_or("-".to_owned(), |w| w.usage_count.to_string()),
        );
    } else {
        stage.cannot_observe("Usage count logged", "the kernel log cannot be read without privilege");
    }
    Ok(line.map_or(String::new(), |line| format!("; the kernel: {line}")))
}

/// The kernel's log message about a device that cannot be freed. Waits for it
/// only while the kernel is `waiting` for the device: after that, there will be
/// no new message.
pub async fn unregister_netdevice(
    stage: &Stage<'_>,
    device: &str,
    waiting: bool,
) -> Result<Option<StuckDevice>> {
    // The kernel logs it after net.core.netdev_unregister_timeout_secs, 10 by
    // default, and may be late, because it takes the RTNL mutex once a second.
    // If the log cannot be read, the play only waits until the message is due.
    let readable = stage.log().readable();
    let patience = Duration::from_secs(match (waiting, readable) {
        (false, _) => 0,
        (true, true) => 25,
        (true, false) => 11,
    });
    let message = stage.logged(|r| r.unregister_netdevice().filter(|w| w.device == device), patience).await?;
    if !readable {
        stage.pass(patience).await;
    }
    Ok(message)
}

/// Records which operations of other processes on the node still work.
pub async fn others(stage: &Stage<'_>, node: &Host) -> Result<()> {
    let mut list = Attempt::begin(node, |ns| link::list(ns).is_ok())?;
    stage.observe("others list links", works(list.within(PATIENCE).await == Some(&true)));
    let mut make = Attempt::begin(node, |_| Namespace::new("bystander"))?;
    stage.observe("others make a namespace", works(make.within(PATIENCE).await.is_some_and(Result::is_ok)));
    let Some(Ok(bystander)) = make.take() else { return Ok(()) };
    let there = bystander.try_clone()?;
    let mut add = Attempt::begin(node, move |ns| link::add_veth(ns, "new", &there, "eth0").is_ok())?;
    stage.observe("others add a link", works(add.within(PATIENCE).await == Some(&true)));
    // Closing the last descriptor frees the namespace and its links.
    drop((bystander, add));
    stage.observe("others delete one", works(link::vanishes(node, "new", 3 * PATIENCE).await));
    Ok(())
}
